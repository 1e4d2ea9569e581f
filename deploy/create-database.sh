#!/bin/sh
# Make the database and the owner that DATABASE_URL names, in the PostgreSQL that PGHOST names. Run
# again, it changes the password alone: a new one in .env is all that rotating it takes.
set -eu

example='postgresql+psycopg://clearclip:PASSWORD@postgres/clearclip'
case ${DATABASE_URL:-} in
postgres*://*:*@"$PGHOST"/?* | postgres*://*:*@"$PGHOST":5432/?*) ;;
*)
    echo "The profile database needs DATABASE_URL in .env, such as $example" >&2
    exit 1
    ;;
esac

login=${DATABASE_URL#*://}
name=${login##*/}
login=${login%@*}

psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 \
    --set owner="${login%%:*}" --set password="${login#*:}" --set name="${name%%\?*}" <<'SQL'
SELECT format('CREATE ROLE %I LOGIN', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \gexec
SELECT format('ALTER ROLE %I PASSWORD %L', :'owner', :'password') \gexec
SELECT format('CREATE DATABASE %I OWNER %I ENCODING UTF8 TEMPLATE template0', :'name', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
SQL
