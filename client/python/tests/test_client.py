"""The client against a real Postgres (TARN_TEST_DSN) and, where deltalake is installed, a real Delta table."""

import os
import tempfile
import unittest
from datetime import date, datetime, timezone
from decimal import Decimal

import psycopg

from tarn_lakebase import (
    Cursor, DeltaCheckpointStore, Lakebase, LakebaseClient, LakebaseError, MemoryCheckpointStore, StaleCheckpoint,
)
from tarn_lakebase.store import Checkpoint

DSN = os.environ["TARN_TEST_DSN"]


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.conn = psycopg.connect(DSN, autocommit=True)
        self.addCleanup(self.conn.close)
        self.conn.execute('DROP SCHEMA IF EXISTS "in" CASCADE; CREATE SCHEMA "in"')

    def client(self, table, column, store=None, **more):
        c = LakebaseClient(Lakebase(conninfo=DSN), table, column, store or MemoryCheckpointStore(), **more)
        self.addCleanup(c.close)
        return c

    def test_bounded_batches_resume(self):
        self.conn.execute('CREATE TABLE "in".t (id int PRIMARY KEY, at int); INSERT INTO "in".t SELECT i, i / 10 FROM generate_series(1, 95) i')
        store = MemoryCheckpointStore()
        first = self.client("in.t", "at", store)
        got = [r["id"] for r in first.load_new_data(40)]
        self.assertEqual(got, list(range(1, 41)))  # LIMIT cuts through equal values
        again = self.client("in.t", "at", store)
        self.assertEqual([r["id"] for r in again.load_new_data(40)], got)  # not committed: it comes again
        self.assertIsNone(again.last_checkpoint)
        rest = [r["id"] for b in again.batches(40) for r in b]
        self.assertEqual(rest, list(range(41, 96)))
        self.assertEqual(again.last_checkpoint, "9")
        self.assertEqual(len(self.client("in.t", "at", store).load_new_data()), 0)

    def test_updates_nulls_and_lower_values_are_found(self):
        self.conn.execute('CREATE TABLE "in".t (a text, b int, v int, at timestamptz, PRIMARY KEY (a, b))')
        self.conn.execute('INSERT INTO "in".t VALUES (\'x\', 1, 0, now()), (\'x\', 2, 0, NULL), (\'é"\', 3, 0, now() - interval \'1 day\')')
        c = self.client("in.t", "at")
        self.assertEqual(len(c.load_new_data()), 3)
        for change, key in (
            ("UPDATE \"in\".t SET v = 1 WHERE b = 1", 1), ("UPDATE \"in\".t SET v = 1 WHERE b = 2", 2),
            ("INSERT INTO \"in\".t VALUES ('y', 4, 0, now() - interval '2 days')", 4), ("UPDATE \"in\".t SET at = NULL WHERE b = 3", 3),
        ):
            self.conn.execute(change)
            self.assertEqual([r["b"] for r in c.load_new_data()], [key], change)
        self.assertEqual(len(c.load_new_data()), 0)

    def test_a_large_late_transaction_comes_in_parts(self):
        self.conn.execute('CREATE TABLE "in".t (id int PRIMARY KEY, at int)')
        with psycopg.connect(DSN) as slow:
            slow.execute('INSERT INTO "in".t SELECT i, 0 FROM generate_series(1, 50) i')
            self.conn.execute('INSERT INTO "in".t SELECT i, i FROM generate_series(100, 110) i')
            store = MemoryCheckpointStore()
            self.assertEqual(sum(map(len, self.client("in.t", "at", store).batches(7))), 11)
            slow.commit()
        found = []
        for i in range(20):  # a new process for every batch
            c = self.client("in.t", "at", store)
            batch = c.load_new_data(7)
            found += [r["id"] for r in batch]
            if i == 2:
                self.conn.execute('INSERT INTO "in".t VALUES (60, 0), (200, 200)')
            batch.commit()
            if not batch:
                break
        self.assertEqual(sorted(found), [*range(1, 51), 60, 200])

    def test_types(self):
        self.conn.execute("""CREATE TABLE "in".t (id int PRIMARY KEY, n numeric(10,2), big numeric, j jsonb, ts timestamptz, tz timestamp, d date, b bytea,
            a int[], f real, u uuid, ok boolean)""")
        self.conn.execute("""INSERT INTO "in".t VALUES (1, 1.50, 1e40, '{"a": 1}', '2026-01-02 03:04:05.5+02', '2026-01-02 03:04:05', '2026-01-02', '\\x00ff', '{1,NULL}', 1.5,
            '00000000-0000-0000-0000-000000000001', true), (2, 'NaN', NULL, NULL, 'infinity', '0044-03-15 BC', 'infinity', NULL, NULL, 'NaN', NULL, NULL)""")
        batch = self.client("in.t", "id").load_new_data()
        self.assertEqual(batch.rows[0], (
            1, Decimal("1.50"), "1" + "0" * 40, '{"a": 1}', datetime(2026, 1, 2, 1, 4, 5, 500000, timezone.utc), datetime(2026, 1, 2, 3, 4, 5), date(2026, 1, 2), b"\x00\xff",
            "{1,NULL}", 1.5, "00000000-0000-0000-0000-000000000001", True))
        self.assertEqual([(p.key, p.column, p.text) for p in batch.problems], [
            (("2",), "n", "NaN"), (("2",), "ts", "infinity"), (("2",), "tz", "0044-03-15 00:00:00 BC"), (("2",), "d", "infinity")])
        table = batch.to_arrow()
        self.assertEqual([str(f.type) for f in table.schema], [
            "int32", "decimal128(10, 2)", "string", "string", "timestamp[us, tz=UTC]", "timestamp[us]", "date32[day]", "binary", "string", "float", "string", "bool"])
        self.assertEqual(table.column("n").to_pylist(), [Decimal("1.50"), None])

    def test_definitions_and_rows(self):
        c = self.client('in."Odd ""name"""', "id")
        c.create_table({"id": "bigint", "item; DROP": "varchar(20)"}, primary_key=["id"])
        c.alter_table_add_column("price", "numeric(10, 2)")
        c.alter_table_add_column("price", "numeric(10, 2)")
        self.assertEqual(c.insert([{"id": 1, "item; DROP": "a", "price": 2}, {"id": 2, "item; DROP": None, "price": 3}]), 2)
        self.assertEqual(c.update({"price": 5}, {"item; DROP": None}), 1)
        self.assertEqual(c.select({"id": 2}), [{"id": 2, "item; DROP": None, "price": Decimal(5)}])
        index = c.create_index(["item; DROP"])
        self.assertEqual(c.create_index(["item; DROP"]), index)
        self.assertEqual(len(c.load_new_data()), 2)
        self.assertEqual(c.delete({"id": 1}), 1)
        for wrong in (lambda: c.delete({}), lambda: c.update({"price": 1}, {}), lambda: c.alter_table_add_column("x", "int; DROP TABLE t"), lambda: c.create_table({"a": "int"}, ["b"])):
            self.assertRaises(LakebaseError, wrong)

    def test_an_index_that_failed_is_made_again(self):
        self.conn.execute('CREATE TABLE "in".t (id int, v int); INSERT INTO "in".t VALUES (1, 1), (1, 1)')
        c = self.client("in.t", "v", key_columns=["id"])
        self.assertRaises(psycopg.errors.UniqueViolation, c.create_index, ["id"], unique=True)
        self.conn.execute('DELETE FROM "in".t')
        c.create_index(["id"], unique=True)
        self.assertEqual(self.conn.execute("SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = '\"in\".t'::regclass").fetchone(), (True,))

    def test_refusals(self):
        self.conn.execute('CREATE TABLE "in".nokey (v int); CREATE VIEW "in".view AS SELECT 1 AS id; CREATE TABLE "in".nullable (id int UNIQUE)')
        for table, column, says in (("in.nokey", "v", "key_columns"), ("in.view", "id", "views"), ("in.none", "id", "no table"), ("in.nokey", "w", "no column w"), ("in.nullable", "id", "key_columns")):
            with self.assertRaisesRegex(LakebaseError, says):
                self.client(table, column).load_new_data()
        with self.assertRaisesRegex(LakebaseError, "limit"):
            self.client("in.nokey", "v").load_new_data(0)

    def test_a_database_that_went_back_is_refused(self):
        self.conn.execute('CREATE TABLE "in".t (id int PRIMARY KEY)')
        for state, says in ((Cursor(line="1/00000009", lsn=1), "line"), (Cursor(lsn=1 << 60), "WAL byte")):
            store = MemoryCheckpointStore()
            store.put(Checkpoint("s", "in.t", "id", None, 0, state.to_json()), None)
            c = self.client("in.t", "id", store, source_id="s")
            with self.assertRaisesRegex(LakebaseError, says):
                c.load_new_data()
            c.reset()
            self.assertEqual(len(c.load_new_data()), 0)

    def test_checkpoints_in_delta(self):
        try:
            import deltalake  # noqa: F401
        except ImportError:
            self.skipTest("deltalake is not installed")
        self.conn.execute('CREATE TABLE "in".t (id int PRIMARY KEY); INSERT INTO "in".t SELECT generate_series(1, 10)')
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "checkpoints")
            with self.client("in.t", "id", DeltaCheckpointStore(path), source_id="a") as c:
                self.assertEqual(len(c.load_new_data(4)), 4)
            b = self.client("in.t", "id", DeltaCheckpointStore(path), source_id="b")
            self.assertEqual(sum(map(len, b.batches(3))), 10)
            one, two = (self.client("in.t", "id", DeltaCheckpointStore(path), source_id="a") for _ in range(2))
            self.assertEqual((one.last_checkpoint, b.last_checkpoint), ("4", "10"))
            first, second = one.load_new_data(2), two.load_new_data(2)
            first.commit()
            self.assertRaises(StaleCheckpoint, second.commit)  # two readers of one source


if __name__ == "__main__":
    unittest.main()
