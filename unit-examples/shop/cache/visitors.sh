# One line a visitor, and how many there are.
printf 'Content-Type: text/plain\r\n\r\n'
echo >> /cache/visitors
wc -l < /cache/visitors
