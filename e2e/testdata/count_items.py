"""Counts the rows of table items over the connection string it is given."""

import sys

import psycopg

with psycopg.connect(sys.argv[1]) as conn:
    print(conn.execute("SELECT count(*) FROM items").fetchone()[0])
