package api

// routes is the whole surface, one row a call. Resource names of the postgres
// service are unescaped path segments.
func routes(c Config) []route {
	ops := &operationDoor{control: c.Control, feeds: c.Feeds, synced: c.SyncedTables, catalog: c.Catalog}
	var (
		host      = &hostDoor{workspace: c.Workspace}
		instances = &instanceDoor{control: c.Control, workspace: c.Workspace}
		synced    = &syncedDoor{control: c.Control, keeper: c.SyncedTables, ops: ops}
		pipelines = &pipelineDoor{keeper: c.SyncedTables}
		projects  = &projectDoor{control: c.Control, ops: ops}
		branches  = &branchDoor{control: c.Control, ops: ops}
		snapshots = &snapshotDoor{control: c.Control, ops: ops}
		pasts     = &pastDoor{control: c.Control, ops: ops}
		endpoints = &endpointDoor{control: c.Control, ops: ops}
		feeds     = &feedDoor{control: c.Control, keeper: c.Feeds, ops: ops}
		databases = &databaseDoor{control: c.Control, ops: ops}
		catalogs  = &catalogDoor{control: c.Control, catalog: c.Catalog, ops: ops}
		tokens    = &tokenDoor{control: c.Control}
		unity     = &unityDoor{catalog: c.Catalog, open: c.OpenTable, log: c.Log}
		own       = &ownDoor{control: c.Control, workspace: c.Workspace, caFile: c.CAFile, version: c.Version, lakeURL: c.LakeURL, storage: c.Storage, processes: c.Processes, volumes: c.Volumes, sessions: c.Sessions}
		store     = &storeDoor{control: c.Control, store: c.PageStore}
		lake      = &lakeDoor{catalog: c.Catalog, open: c.OpenTable}
	)
	const (
		db       = "/api/2.0/database/"
		pg       = "/api/2.0/postgres/"
		uc       = "/api/2.1/unity-catalog/"
		mine     = "/api/2.0/tarn/"
		project  = "projects/{project}"
		branch   = project + "/branches/{branch}"
		snapshot = project + "/snapshots/{snapshot}"
		endpoint = branch + "/endpoints/{endpoint}"
		configs  = branch + "/databases/{database}/cdf-configs"
		config   = configs + "/{config}"
	)
	return append(append(identityRoutes(c), roleRoutes(&roleDoor{control: c.Control, ops: ops})...), []route{
		{"GET /.well-known/databricks-config", public, host.config},

		{"POST " + db + "instances", signedIn, instances.create},
		{"GET " + db + "instances", signedIn, instances.list},
		{"GET " + db + "instances:findByUid", signedIn, instances.find},
		{"GET " + db + "instances/{project}", signedIn, instances.get},
		{"PATCH " + db + "instances/{project}", signedIn, instances.update},
		{"DELETE " + db + "instances/{project}", signedIn, instances.delete},
		{"POST " + db + "credentials", signedIn, instances.credential},
		{"GET " + db + "instances/{project}/synced_tables", signedIn, synced.listOfInstance},
		{"POST " + db + "synced_tables", signedIn, synced.createInInstance},
		{"POST " + db + "catalogs", signedIn, catalogs.createOfInstance},
		{"GET " + db + "catalogs/{catalog}", signedIn, catalogs.getOfInstance},
		{"PATCH " + db + "catalogs/{catalog}", signedIn, catalogs.updateOfInstance},
		{"DELETE " + db + "catalogs/{catalog}", signedIn, catalogs.deleteOfInstance},
		{"GET " + db + "instances/{project}/catalogs", signedIn, catalogs.listOfInstance},
		{"GET " + db + "synced_tables/{table}", ofTable, synced.getOfInstance},
		{"DELETE " + db + "synced_tables/{table}", ofTable, synced.deleteOfInstance},

		{"POST " + pg + "projects", signedIn, projects.create},
		{"GET " + pg + "projects", signedIn, projects.list},
		{"GET " + pg + project, signedIn, projects.get},
		{"PATCH " + pg + project, signedIn, projects.update},
		{"DELETE " + pg + project, signedIn, projects.delete},
		{"POST " + pg + project + "/branches", signedIn, branches.create},
		{"GET " + pg + project + "/branches", signedIn, branches.list},
		{"GET " + pg + branch, signedIn, branches.get},
		{"PATCH " + pg + branch, signedIn, branches.update},
		{"DELETE " + pg + branch, signedIn, branches.delete},
		{"POST " + pg + project + "/snapshots", signedIn, snapshots.create},
		{"GET " + pg + project + "/snapshots", signedIn, snapshots.list},
		{"GET " + pg + snapshot, signedIn, snapshots.get},
		{"DELETE " + pg + snapshot, signedIn, snapshots.delete},
		{"POST " + pg + branch + "/endpoints", signedIn, endpoints.create},
		{"GET " + pg + branch + "/endpoints", signedIn, endpoints.list},
		{"GET " + pg + endpoint, signedIn, endpoints.get},
		{"PATCH " + pg + endpoint, signedIn, endpoints.update},
		{"DELETE " + pg + endpoint, signedIn, endpoints.delete},
		{"POST " + pg + branch + "/databases", mayUse, databases.create},
		{"GET " + pg + branch + "/databases", signedIn, databases.list},
		{"GET " + pg + branch + "/databases/{database}", signedIn, databases.get},
		{"PATCH " + pg + branch + "/databases/{database}", mayUse, databases.update},
		{"DELETE " + pg + branch + "/databases/{database}", mayUse, databases.delete},
		{"POST " + pg + "catalogs", signedIn, catalogs.create},
		{"GET " + pg + "catalogs/{catalog}", signedIn, catalogs.get},
		{"DELETE " + pg + "catalogs/{catalog}", signedIn, catalogs.delete},
		{"POST " + pg + "credentials", signedIn, endpoints.credential},
		{"POST " + pg + configs, signedIn, feeds.create},
		{"GET " + pg + configs, signedIn, feeds.list},
		{"GET " + pg + config, signedIn, feeds.get},
		{"DELETE " + pg + config, signedIn, feeds.delete},
		{"GET " + pg + config + "/cdf-statuses", signedIn, feeds.listStatuses},
		{"GET " + pg + config + "/cdf-statuses/{status}", signedIn, feeds.getStatus},
		{"POST " + pg + "synced_tables", signedIn, synced.create},
		{"GET " + pg + "synced_tables/{table}", ofTable, synced.get},
		{"DELETE " + pg + "synced_tables/{table}", ofTable, synced.delete},
		{"GET " + pg + "{operation...}", signedIn, ops.get},

		{"GET /api/2.0/pipelines", signedIn, pipelines.list},
		{"GET /api/2.0/pipelines/{pipeline}", ofPipeline, pipelines.get},
		{"GET /api/2.0/pipelines/{pipeline}/updates", ofPipeline, pipelines.updates},
		{"POST /api/2.0/pipelines/{pipeline}/updates", ofPipeline, pipelines.start},
		{"GET /api/2.0/pipelines/{pipeline}/updates/{update}", ofPipeline, pipelines.update},
		{"GET /api/2.0/pipelines/{pipeline}/events", ofPipeline, pipelines.events},
		{"POST /api/2.0/pipelines/{pipeline}/stop", ofPipeline, pipelines.stop},

		{"POST /api/2.0/token/create", signedIn, tokens.create},
		{"GET /api/2.0/token/list", signedIn, tokens.list},
		{"POST /api/2.0/token/delete", signedIn, tokens.revoke},

		{"GET " + uc + "catalogs", signedIn, unity.listCatalogs},
		{"GET " + uc + "catalogs/{catalog}", signedIn, unity.getCatalog},
		{"GET " + uc + "schemas", signedIn, unity.listSchemas},
		{"GET " + uc + "schemas/{schema}", signedIn, unity.getSchema},
		{"GET " + uc + "tables", signedIn, unity.listTables},
		{"POST " + uc + "tables", signedIn, unity.createTable},
		{"GET " + uc + "tables/{table}", signedIn, unity.getTable},
		{"DELETE " + uc + "tables/{table}", signedIn, unity.dropTable},
		{"GET " + uc + "tables/{table}/exists", signedIn, unity.tableExists},

		{"GET " + mine + "status", signedIn, own.status},
		{"GET " + mine + "connections", signedIn, own.connections},
		{"GET " + mine + "store/stats", adminOnly, store.stats},
		{"POST " + mine + "store/checks", adminOnly, store.begin},
		{"GET " + mine + "store/checks/{check}", adminOnly, store.check},
		{"GET " + mine + branch + "/connection", signedIn, own.connection},
		{"POST " + mine + branch + "/endpoints/{verb}", mayUse, own.act},
		{"GET " + mine + branch + "/window", signedIn, pasts.window},
		{"POST " + mine + project + "/branches/{verb}", signedIn, pasts.act},
		{"GET " + mine + "synced_tables", signedIn, synced.list},
		{"PATCH " + mine + "synced_tables/{table}", ofTable, synced.change},
		{"POST " + mine + "synced_tables/{table}/verify", ofTable, synced.verify},
		{"GET " + mine + "synced_tables/{table}/dead_letters", ofTable, synced.deadLetters},
		{"POST " + mine + "synced_tables/{table}/replay", ofTable, synced.replay},
		{"PATCH " + mine + config, signedIn, feeds.update},
		{"POST " + mine + config + "/resync", signedIn, feeds.resync},
		{"POST " + mine + config + "/verify", signedIn, feeds.verify},
		{"GET " + mine + "tables/{table}/head", signedIn, lake.head},
		{"GET " + mine + "tables/{table}/count", signedIn, lake.count},
		{"GET " + mine + "tables/{table}/history", signedIn, lake.history},

		{"/", public, host.nowhere},
	}...)
}
