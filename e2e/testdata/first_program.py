# The first program of the product page, unmodified below the line; a host and
# a token come from the environment, as always.
import uuid

import psycopg2
from databricks.sdk import WorkspaceClient

# ---------------------------------------------------------------------------
w = WorkspaceClient()
inst = w.database.get_database_instance(name="shop")
cred = w.database.generate_database_credential(request_id=str(uuid.uuid4()), instance_names=["shop"])
conn = psycopg2.connect(host=inst.read_write_dns, dbname="databricks_postgres", user=w.current_user.me().user_name,
                        password=cred.token, sslmode="require")
# ---------------------------------------------------------------------------
with conn, conn.cursor() as cur:
    cur.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)")
    cur.execute("INSERT INTO orders SELECT i, 'item ' || i FROM generate_series(1, 1000) i")
    cur.execute("SELECT count(*), sum(id), current_user = session_user FROM orders")
    print(*cur.fetchone())
print(inst.name, inst.state.value, inst.pg_version)
