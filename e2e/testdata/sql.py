"""Statements through the published SDK, over a Delta table and a Postgres table."""
import time
import pyarrow
from deltalake import DeltaTable
from databricks.sdk import WorkspaceClient
from databricks.sdk.service import database, sql

w = WorkspaceClient()
w.database.create_database_catalog(database.DatabaseCatalog(
    name="shop_pg", database_instance_name="shop", database_name="databricks_postgres"))
s = w.statement_execution
JOIN = """SELECT u.name, sum(o.total) AS spent, count(*) AS n FROM lake.gold.users u
JOIN shop_pg.public.orders o ON o.customer = u.id WHERE o.id > 0 GROUP BY u.name ORDER BY u.name"""


def run(text, **more):
    r = s.execute_statement(statement=text, warehouse_id="default", wait_timeout="50s", **more)
    while r.status.state in (sql.StatementState.PENDING, sql.StatementState.RUNNING):
        time.sleep(0.2)
        r = s.get_statement(r.statement_id)
    return r


r = run(JOIN)
if r.status.error:
    print(r.status.error.message)
print("manifest", [f"{c.name} {c.type_text} {c.type_name.value}" for c in r.manifest.schema.columns], r.manifest.total_row_count, "rows")
print("join", r.result.data_array)
r = run("SELECT count(*) FROM lake.gold.users WHERE id >= :least AND day = :day", parameters=[
    sql.StatementParameterListItem(name="least", value="2", type="BIGINT"), sql.StatementParameterListItem(name="day", value="2024-10-05", type="DATE")])
print("parameters", r.result.data_array)
r = run("SELECT i, repeat('x', 100) AS s FROM range(100000) t(i)")
rows, part, total = 0, r.result, 0
while True:
    rows += len(part.data_array)
    total += sum(int(x[0]) for x in part.data_array)
    if part.next_chunk_index is None:
        break
    part = s.get_statement_result_chunk_n(r.statement_id, part.next_chunk_index)
print("chunks", rows, "rows in several", r.manifest.total_chunk_count > 1, "sum", total)
run("CREATE TABLE lake.gold.totals (customer BIGINT NOT NULL, total DECIMAL(10,2)) TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true')")
run("INSERT INTO lake.gold.totals VALUES (1, 0), (7, 7)")
r = run("""MERGE INTO lake.gold.totals t USING (SELECT customer, sum(total) AS total FROM shop_pg.public.orders GROUP BY 1) o ON t.customer = o.customer
WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT * WHEN NOT MATCHED BY SOURCE THEN DELETE""")
print("merge", r.result.data_array)
t = DeltaTable(run("DESCRIBE DETAIL lake.gold.totals").result.data_array[0][3])
fed = pyarrow.table(t.load_cdf(starting_version=2).read_all())
print("deltalake", sorted((r["customer"], str(r["total"])) for r in t.to_pyarrow_table().to_pylist()),
      sorted((r["_change_type"], r["customer"]) for r in fed.to_pylist()))
r = run("SELECT id,\n  nme FROM lake.gold.users")
print("failed", r.status.error.error_code.value, r.status.error.message)
r = s.execute_statement(statement="SELECT count(*) FROM range(100000000) a(i), range(100000000) b(j) WHERE i * j % 7 = 3", warehouse_id="default", wait_timeout="0s")
s.cancel_execution(r.statement_id)
while (r := s.get_statement(r.statement_id)).status.state in (sql.StatementState.PENDING, sql.StatementState.RUNNING):
    time.sleep(0.1)
print("canceled", r.status.state.value)
print("history", any(q.query_text == JOIN for q in w.query_history.list(max_results=50).res))
for h in w.warehouses.list():
    print("warehouse", h.id, h.state.value)
