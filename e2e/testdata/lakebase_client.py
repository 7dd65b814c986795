# Reads a table in micro-batches with tokens from the SDK, whose settings come
# from the environment, and keeps its checkpoint in a Delta table.
import sys
import time

from tarn_lakebase import DeltaCheckpointStore, Lakebase, LakebaseClient

now = time.time
database = Lakebase(instance="shop", clock=lambda: now())
with LakebaseClient(database, "items", "changed", DeltaCheckpointStore(sys.argv[1])) as client:
    sizes = [len(b) for b in client.batches(250)]
    print(sum(sizes), "in", len(sizes), "batches")

    first, real = database._token, now
    now = lambda: real() + 3600  # the token has ended; the session has, too
    client.close()
    client.update({"name": "again"}, {"id": 7})
    print(len({first, database._token}), "tokens")
    print([{k: r[k] for k in ("id", "name")} for r in client.load_new_data()])
