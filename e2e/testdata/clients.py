"""Python clients through the gateway. Arguments: how (direct or pooled), URL.

Every client does what people do with it: prepared statements past the point
where it prepares by itself, transactions, COPY, errors, many rows. Each prints
its name when all of it held.
"""

import asyncio
import sys
import urllib.parse

how, url = sys.argv[1], sys.argv[2]
pooled = how == "pooled"


def psycopg2_client():
    import psycopg2
    import psycopg2.extras

    c = psycopg2.connect(url, application_name="psycopg2/test")
    with c, c.cursor() as cur:
        cur.execute("CREATE TABLE IF NOT EXISTS py2 (n int PRIMARY KEY, v text)")
        psycopg2.extras.execute_values(cur, "INSERT INTO py2 VALUES %s", [(i, "v%d" % i) for i in range(1000)])
        cur.execute("SELECT count(*), sum(n) FROM py2")
        assert cur.fetchone() == (1000, 499500)
    with c, c.cursor("named") as cur:  # a cursor in the transaction
        cur.itersize = 100
        cur.execute("SELECT n FROM py2 ORDER BY n")
        assert [r[0] for r in cur] == list(range(1000))
    try:
        with c, c.cursor() as cur:
            cur.execute("INSERT INTO py2 VALUES (1, 'again')")
        raise AssertionError("a duplicate was taken")
    except psycopg2.errors.UniqueViolation as e:
        assert e.diag.constraint_name == "py2_pkey", e.diag
    with c, c.cursor() as cur:
        large = c.lobject(0, "wb")
        large.write(b"x" * 100000)
        oid = large.oid
        large.close()
        assert len(c.lobject(oid, "rb").read()) == 100000
        c.lobject(oid).unlink()
        cur.execute("DROP TABLE py2")
        cur.execute("SHOW application_name")
        assert cur.fetchone()[0] == "psycopg2/test"
    c.close()


def psycopg_client():
    import psycopg

    with psycopg.connect(url) as c:
        c.prepare_threshold = 2
        for i in range(20):
            assert c.execute("SELECT %s::int + 1", (i,)).fetchone()[0] == i + 1
            c.commit()
        c.execute("CREATE TEMP TABLE t3 (n int, v bytea)")
        with c.cursor().copy("COPY t3 FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "bytea"])
            for i in range(500):
                copy.write_row((i, bytes([i % 256])))
        assert c.execute("SELECT count(*) FROM t3").fetchone()[0] == 500
        with c.pipeline():
            one = c.execute("SELECT 1")
            two = c.execute("SELECT 2")
            assert (one.fetchone(), two.fetchone()) == ((1,), (2,))
        with c.cursor("server") as cur:
            assert len(cur.execute("SELECT n FROM t3").fetchall()) == 500
    with psycopg.connect(url, autocommit=True) as c:
        c.prepare_threshold = 0
        for i in range(150):  # more statements than psycopg keeps: it deallocates
            assert c.execute(f"SELECT {i} + %s", (1,)).fetchone()[0] == i + 1
        c.execute("DEALLOCATE ALL")
        assert c.execute("SELECT 5 + %s", (1,)).fetchone()[0] == 6


async def psycopg_async():
    import psycopg

    async with await psycopg.AsyncConnection.connect(url) as c:
        for i in range(10):
            assert (await (await c.execute("SELECT %s::text", (str(i),))).fetchone())[0] == str(i)
        try:
            await asyncio.wait_for(c.execute("SELECT pg_sleep(60)"), 0.5)  # cancels
            raise AssertionError("not cancelled")
        except (asyncio.TimeoutError, psycopg.errors.QueryCanceled):
            pass


def psycopg_pool():
    import psycopg_pool

    with psycopg_pool.ConnectionPool(url, min_size=2, max_size=4, open=True) as pool:
        for i in range(30):
            with pool.connection() as c:
                assert c.execute("SELECT %s::int", (i,)).fetchone()[0] == i


def sqlalchemy_client():
    import sqlalchemy as sa

    for dialect in ("psycopg2", "psycopg"):
        e = sa.create_engine(url.replace("postgresql://", f"postgresql+{dialect}://", 1), pool_pre_ping=True, pool_size=3)
        meta = sa.MetaData()
        t = sa.Table("alchemy", meta, sa.Column("id", sa.Integer, primary_key=True), sa.Column("v", sa.String))
        meta.create_all(e)
        with e.begin() as c:
            c.execute(t.insert(), [{"v": str(i)} for i in range(100)])
        with e.connect() as c:
            assert c.execute(sa.select(sa.func.count()).select_from(t)).scalar() == 100
        assert "alchemy" in sa.inspect(e).get_table_names()
        meta.drop_all(e)
        e.dispose()


async def asyncpg_client():
    import asyncpg
    import ssl

    u = urllib.parse.urlsplit(url)
    q = dict(urllib.parse.parse_qsl(u.query))
    ctx = ssl.create_default_context(cafile=q["sslrootcert"])
    pool = await asyncpg.create_pool(
        host=u.hostname, port=u.port, user=urllib.parse.unquote(u.username), password=urllib.parse.unquote(u.password),
        database=u.path[1:], ssl=ctx, min_size=2, max_size=4)
    for i in range(20):  # its release says RESET ALL, UNLISTEN and more
        async with pool.acquire() as c:
            assert await c.fetchval("SELECT $1::int + 1", i) == i + 1
    async with pool.acquire() as c:
        async with c.transaction():
            await c.execute("CREATE TABLE IF NOT EXISTS apg (n int, a text[])")
            await c.copy_records_to_table("apg", records=[(i, [str(i)]) for i in range(300)])
            assert await c.fetchval("SELECT count(*) FROM apg WHERE a[1] = n::text") == 300
            n = 0
            async for _ in c.cursor("SELECT * FROM apg"):
                n += 1
            assert n == 300
            await c.execute("DROP TABLE apg")
        try:
            heard = asyncio.Event()
            told = lambda *a: heard.set()
            await c.add_listener("news", told)
            assert not pooled, "LISTEN was taken by the pooler"
            await c.execute("NOTIFY news")
            await asyncio.wait_for(heard.wait(), 10)
            await c.remove_listener("news", told)
        except asyncpg.FeatureNotSupportedError as e:
            assert pooled and "direct" in e.hint, e
    try:
        async with pool.acquire() as c:
            await c.fetchval("SELECT pg_sleep(60)", timeout=0.5)
        raise AssertionError("not cancelled")
    except asyncio.TimeoutError:
        pass
    await pool.close()


for f in (psycopg2_client, psycopg_client, psycopg_async, psycopg_pool, sqlalchemy_client, asyncpg_client):
    asyncio.run(f()) if asyncio.iscoroutinefunction(f) else f()
    print(f.__name__, flush=True)
