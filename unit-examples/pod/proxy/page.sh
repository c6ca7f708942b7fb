# busybox' server passes no request on, so its page does.
. ./proxy.conf
printf 'Content-Type: text/plain\r\n\r\n'
exec wget -q -O - "$upstream"
