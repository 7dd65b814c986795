"""Sessions of psycopg, psycopg2 and asyncpg that stay open while their compute goes and comes.

Prints "ready" and waits for a line, as often as it is told; then every session must be as it was."""

import asyncio
import sys

import asyncpg
import psycopg
import psycopg2

url = sys.argv[1]


async def main():
    three = psycopg.connect(url, autocommit=True, prepare_threshold=0)
    two = psycopg2.connect(url)
    two.autocommit = True
    other = await asyncpg.connect(url)
    three.execute("SET work_mem = '7MB'")
    three.execute("SET app.tenant = 'seven'")
    two.cursor().execute("SET TimeZone = 'Asia/Tokyo'")
    await other.execute("SET search_path = pg_catalog")
    statement = await other.prepare("SELECT $1::int + 1")
    assert await statement.fetchval(0) == 1  # until it runs, asyncpg's pipeline has no end
    began = three.execute("SELECT pg_postmaster_start_time()").fetchone()
    for n in range(int(sys.argv[2])):
        assert three.execute("SELECT %s::int * 2", (n,)).fetchone() == (2 * n,)
        print("ready", flush=True)
        sys.stdin.readline()
        assert three.execute("SELECT %s::int * 2", (n,)).fetchone() == (2 * n,)
        assert three.execute("SELECT current_setting('work_mem'), current_setting('app.tenant')").fetchone() == ("7MB", "seven")
        c = two.cursor()
        c.execute("SHOW TimeZone")
        assert c.fetchone() == ("Asia/Tokyo",)
        assert await statement.fetchval(n) == n + 1
        assert await other.fetchval("SHOW search_path") == "pg_catalog"
        now = three.execute("SELECT pg_postmaster_start_time()").fetchone()
        assert now != began, "the compute was not stopped"
        began = now
    print("done", flush=True)


asyncio.run(main())
