"""Writers that commit out of order, and what each way of polling finds of their rows.

    python -m unittest client/python/tests/test_loss.py     TARN_TEST_DSN says which Postgres
"""

import os
import random
import threading
import time
import unittest
from collections import Counter

import psycopg

from tarn_lakebase import Lakebase, LakebaseClient, MemoryCheckpointStore

DSN = os.environ["TARN_TEST_DSN"]
SECONDS = float(os.environ.get("TARN_TEST_SECONDS", "5"))
WRITERS = 8


class Naive:
    """`id > last ORDER BY id LIMIT n`, as it is done everywhere."""

    def __init__(self):
        self.conn, self.last, self.found = psycopg.connect(DSN, autocommit=True), 0, Counter()

    def poll(self):
        for id, version in self.conn.execute("SELECT id, version FROM events WHERE id > %s ORDER BY id LIMIT 500", [self.last]):
            self.found[id, version] += 1
            self.last = id


class Ours:
    def __init__(self, source_id, table="events", restart=0.0):
        self.store, self.source_id, self.table, self.restart, self.found = MemoryCheckpointStore(), source_id, table, restart, Counter()
        self.client = None
        self.open()

    def open(self):
        if self.client is not None:
            self.client.close()
        self.client = LakebaseClient(Lakebase(conninfo=DSN), self.table, "at", self.store, source_id=self.source_id)

    def poll(self):
        batch = self.client.load_new_data(random.choice((1, 7, 100, 500)))
        if random.random() < self.restart:
            return self.open()  # a crash before the batch was kept: it must come again
        for row in batch:
            self.found[row["id"], row["version"]] += 1
        batch.commit()
        return len(batch)


def write(stop, seed, tables):
    """Transactions with subtransactions, roll-backs, pauses, changes of old rows that do not move `at`, NULLs."""
    rnd = random.Random(seed)
    with psycopg.connect(DSN) as conn:
        mine = []
        while not stop.is_set():
            new = []
            with conn.transaction() as t:
                for _ in range(rnd.randint(1, 4)):
                    with conn.transaction() as inner:
                        at = None if rnd.random() < 0.05 else rnd.choice(("now()", "clock_timestamp()", "date_trunc('second', now())"))
                        id = conn.execute("SELECT nextval('events_id')").fetchone()[0]
                        for table in tables:
                            conn.execute("INSERT INTO %s (id, at, version) VALUES (%d, %s, 0)" % (table, id, at or "NULL"))
                        if rnd.random() < 0.1:
                            raise psycopg.Rollback(inner)
                        new.append(id)
                if mine and rnd.random() < 0.3:
                    old = rnd.choice(mine)
                    for table in tables:
                        conn.execute("UPDATE %s SET version = version + 1 WHERE id = %%s" % table, [old])
                if rnd.random() < 0.05:
                    stop.wait(0.2)
                if rnd.random() < 0.1:
                    new.clear()
                    raise psycopg.Rollback(t)
            mine += new
            stop.wait(0.002)


class Loss(unittest.TestCase):
    def test_nothing_is_lost(self):
        tables = ("events", "tracked")
        with psycopg.connect(DSN, autocommit=True) as conn:
            conn.execute("DROP TABLE IF EXISTS events, tracked; DROP SEQUENCE IF EXISTS events_id; CREATE SEQUENCE events_id")
            for table in tables:
                conn.execute("CREATE TABLE %s (id bigint PRIMARY KEY, at timestamptz, version int NOT NULL)" % table)
        with LakebaseClient(Lakebase(conninfo=DSN), "tracked", "at", MemoryCheckpointStore()) as c:
            c.track_changes()
        stop = threading.Event()
        writers = [threading.Thread(target=write, args=(stop, i, tables)) for i in range(WRITERS)]
        pollers = {"naive": Naive(), "ours": Ours("a"), "ours, by index": Ours("b", "tracked"), "ours, crashing": Ours("c", restart=0.2)}
        for w in writers:
            w.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for p in pollers.values():
                p.poll()
        stop.set()
        for w in writers:
            w.join()
        for name, p in pollers.items():
            if name == "naive":
                p.poll()
                p.conn.close()
                continue
            self.addCleanup(p.client.close)
            p.restart, quiet = 0, 0
            while quiet < 2:
                quiet = 0 if p.poll() else quiet + 1
        with psycopg.connect(DSN) as conn:
            there = set(conn.execute("SELECT id, version FROM events").fetchall())
            same = set(conn.execute("SELECT id, version FROM tracked").fetchall())
        self.assertEqual(there, same)
        self.assertGreater(len(there), 100)
        ids = {id for id, _ in there}
        lost = ids - {id for id, _ in pollers["naive"].found}
        print("%d rows; the naive poller lost %d of them, %.1f %%" % (len(ids), len(lost), 100 * len(lost) / len(ids)))
        self.assertTrue(lost, "the naive poller lost nothing: the writers do not do what they should")
        for name, p in pollers.items():
            if name == "naive":
                continue
            self.assertEqual(there - set(p.found), set(), "%s: row versions never seen" % name)
            twice = [k for k, n in p.found.items() if n > 1]
            self.assertEqual(twice, [], "%s: row versions seen more than once" % name)
            print("%s: %d row versions, none lost, none twice" % (name, len(p.found)))


if __name__ == "__main__":
    unittest.main()
