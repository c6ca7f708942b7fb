# The shop's only page: it asks the cache and the database.
printf 'Content-Type: text/plain\r\n\r\n'
echo "$GREETING, from web $INSTANCE"
echo "visitors: $(wget -q -O - "$CACHE/visitors.sh")"
echo "stock: $(wget -q -O - "$DATABASE/stock")"
