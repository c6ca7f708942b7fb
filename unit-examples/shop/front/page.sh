# busybox' server passes no request on, so its page does.
. ./front.conf
printf 'Content-Type: text/plain\r\n\r\n'
exec wget -q -O - "$upstream"
