# Creates, lists, stops, starts and deletes an instance with the published SDK,
# and connects with psycopg 3.
import uuid

import psycopg
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, ResourceConflict
from databricks.sdk.service.database import DatabaseInstance

w = WorkspaceClient()
made = w.database.create_database_instance(DatabaseInstance(name="store", capacity="CU_1")).result()
assert made.state.value == "AVAILABLE" and made.capacity == "CU_1", made
assert "store" in [i.name for i in w.database.list_database_instances()]
try:
    w.database.create_database_instance(DatabaseInstance(name="store", capacity="CU_1")).result()
    raise SystemExit("a second instance of the same name was made")
except ResourceConflict as e:
    print("conflict:", e.error_code)
try:
    w.database.get_database_instance(name="nowhere")
    raise SystemExit("an instance that does not exist was found")
except NotFound as e:
    print("not found:", e.error_code)

user = w.current_user.me().user_name
cred = w.database.generate_database_credential(request_id=str(uuid.uuid4()), instance_names=["store"])
with psycopg.connect(host=made.read_write_dns, dbname="databricks_postgres", user=user, password=cred.token, sslmode="require") as conn:
    print(conn.execute("SELECT 6 * 7").fetchone()[0])

stopped = w.database.update_database_instance(name="store", database_instance=DatabaseInstance(name="store", stopped=True), update_mask="stopped")
assert stopped.effective_stopped, stopped
try:
    psycopg.connect(host=made.read_write_dns, dbname="databricks_postgres", user=user, password=cred.token, sslmode="require")
    raise SystemExit("a stopped instance answered")
except psycopg.OperationalError as e:
    print("stopped:", str(e).strip().splitlines()[0])
w.database.update_database_instance(name="store", database_instance=DatabaseInstance(name="store", stopped=False), update_mask="*")
with psycopg.connect(host=made.read_write_dns, dbname="databricks_postgres", user=user, password=cred.token, sslmode="require") as conn:
    print(conn.execute("SELECT 6 * 7").fetchone()[0])

w.database.delete_database_instance(name="store", purge=True)
try:
    w.database.get_database_instance(name="store")
    print("still there:", w.database.get_database_instance(name="store").state)
except NotFound:
    print("deleted")
