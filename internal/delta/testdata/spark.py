"""Reads our tables with Spark, writes one of its own and works on it. Prints one JSON object.

Arguments: the jars of Delta, separated by commas; the folder of the table to make; folders of our tables.
"""

import json
import sys

from pyspark.sql import SparkSession

jars, own, ours = sys.argv[1], sys.argv[2], sys.argv[3:]
s = (
    SparkSession.builder.master("local[1]")
    .config("spark.jars", jars)
    .config("spark.ui.enabled", "false")
    .config("spark.sql.shuffle.partitions", "1")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.driver.memory", "1g")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .getOrCreate()
)
s.sparkContext.setLogLevel("ERROR")


def lines(frame):
    return sorted("|".join("(null)" if v is None else str(v) for v in r) for r in frame.collect())


def changes(path):
    frame = s.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0).load(path)
    rest = [c for c in frame.columns if not c.startswith("_c")]
    return lines(frame.select("_commit_version", "_change_type", *rest))


out = {"ours": {}, "changes": {}, "after": {}}
for path in ours:
    frame = s.read.format("delta").load(path)
    out["ours"][path] = lines(frame)
    if s.sql(f"describe detail delta.`{path}`").collect()[0]["properties"].get("delta.enableChangeDataFeed") == "true":
        out["changes"][path] = changes(path)
    # Spark goes on with our table, and we with it.
    s.sql(f"delete from delta.`{path}` where id < 20")
    s.sql(f"optimize delta.`{path}`")
    s.sql(f"insert into delta.`{path}` values (500, 'spark', 'x')")
    s.sql("set spark.databricks.delta.retentionDurationCheck.enabled=false")
    s.sql(f"vacuum delta.`{path}` retain 0 hours")
    out["after"][path] = lines(s.read.format("delta").load(path))

t = f"delta.`{own}`"
s.sql(
    f"create table {t} (id bigint, name string, town string, d decimal(10,2), a array<int>, st struct<x:int,y:string>) using delta "
    "partitioned by (town) tblproperties ('delta.enableDeletionVectors'='true','delta.enableChangeDataFeed'='true','delta.columnMapping.mode'='name')"
)
s.sql(
    f"insert into {t} select id, concat('n',id), case when id%3=0 then 'x' when id%3=1 then 'y' end, cast(id*1.5 as decimal(10,2)), "
    "array(id,null), struct(id,'s') from (select cast(id as int) id from range(30))"
)
s.sql(f"delete from {t} where id=3")
s.sql(f"update {t} set name='u' where id=4")
s.sql(
    f"merge into {t} t using (select 5L id union all select 100L) s on t.id=s.id when matched then update set name='m' "
    "when not matched then insert (id,name,town) values (s.id,'new','z')"
)
out["own changes"] = changes(own)
s.sql(f"alter table {t} rename column name to nom")
s.sql(f"optimize {t}")
s.sql(f"delete from {t} where id=7")
s.sql(f"restore table {t} to version as of 1")
s.sql(f"delete from {t} where id=8")
out["own"] = lines(s.read.format("delta").load(own).selectExpr("*"))
json.dump(out, sys.stdout)
