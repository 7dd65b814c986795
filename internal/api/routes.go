package api

import "github.com/tarndb/tarn/internal/api/wire"

// routes is the whole surface, one row a call. Resource names of the postgres
// service are unescaped path segments.
func routes(c Config) []route {
	ops := &operationDoor{control: c.Control, feeds: c.Feeds, synced: c.SyncedTables, catalog: c.Catalog}
	var (
		host      = &hostDoor{workspace: c.Workspace}
		instances = &instanceDoor{control: c.Control, workspace: c.Workspace, issued: &issued{}}
		synced    = &syncedDoor{control: c.Control, keeper: c.SyncedTables, catalog: c.Catalog, ops: ops}
		pipelines = &pipelineDoor{keeper: c.SyncedTables, feeds: c.Feeds}
		projects  = &projectDoor{control: c.Control, ops: ops}
		branches  = &branchDoor{control: c.Control, ops: ops}
		snapshots = &snapshotDoor{control: c.Control, ops: ops}
		pasts     = &pastDoor{control: c.Control, ops: ops}
		endpoints = &endpointDoor{control: c.Control, ops: ops}
		feeds     = &feedDoor{control: c.Control, keeper: c.Feeds, catalog: c.Catalog, ops: ops}
		databases = &databaseDoor{control: c.Control, ops: ops}
		catalogs  = &catalogDoor{control: c.Control, catalog: c.Catalog, ops: ops}
		tokens    = &tokenDoor{control: c.Control}
		own       = &ownDoor{control: c.Control, workspace: c.Workspace, caFile: c.CAFile, version: c.Version, lakeURL: c.LakeURL, storage: c.Storage, copied: c.Copied, processes: c.Processes, volumes: c.Volumes, sessions: c.Sessions}
		store     = &storeDoor{control: c.Control, store: c.PageStore}
		dataAPIs  = &dataAPIDoor{control: c.Control, ops: ops}
		computes  = &computeDoor{control: c.Control}
		tables    = &tableDoor{control: c.Control, catalog: c.Catalog}
	)
	const (
		db       = "/api/2.0/database/"
		pg       = "/api/2.0/postgres/"
		mine     = "/api/2.0/tarn/"
		project  = "projects/{project}"
		branch   = project + "/branches/{branch}"
		snapshot = project + "/snapshots/{snapshot}"
		endpoint = branch + "/endpoints/{endpoint}"
		configs  = branch + "/databases/{database}/cdf-configs"
		dataAPI  = branch + "/databases/{database}/data-api"
		config   = configs + "/{config}"
	)
	docs := &docsDoor{version: c.Version}
	docs.rows = append(append(append(append(identityRoutes(c), sqlRoutes(c)...), append(unityRoutes(c), lineageRoutes(c)...)...), roleRoutes(&roleDoor{control: c.Control, ops: ops})...), []route{
		{"GET /api/docs", public, docs.read, says[none, page]("host.docs", "")},
		{"GET /api/docs/openapi.json", public, docs.document, says[none, openAPI]("host.openapi", "")},
		{"GET /.well-known/databricks-config", public, host.config, says[none, wire.HostConfig]("host.config", "")},

		{"POST " + db + "instances", signedIn, instances.create, says[wire.DatabaseInstance, wire.DatabaseInstance]("database.createDatabaseInstance", "")},
		{"GET " + db + "instances", signedIn, instances.list, says[none, wire.ListDatabaseInstances]("database.listDatabaseInstances", "page_size page_token")},
		{"GET " + db + "instances:findByUid", signedIn, instances.find, says[none, wire.DatabaseInstance]("database.findDatabaseInstanceByUid", "uid")},
		{"GET " + db + "instances/{project}", signedIn, instances.get, says[none, wire.DatabaseInstance]("database.getDatabaseInstance", "")},
		{"PATCH " + db + "instances/{project}", signedIn, instances.update, says[wire.DatabaseInstance, wire.DatabaseInstance]("database.updateDatabaseInstance", "update_mask")},
		{"DELETE " + db + "instances/{project}", signedIn, instances.delete, says[none, wire.Empty]("database.deleteDatabaseInstance", "force purge")},
		{"POST " + db + "instances/{project}/failover", signedIn, instances.failover, says[wire.FailoverInstance, wire.DatabaseInstance]("database.failoverDatabaseInstance", "")},
		{"PATCH " + db + "instances/{project}/upgrade", signedIn, instances.upgrade, says[none, wire.Empty]("database.upgradeInstanceToAutoscaling", "")},
		{"POST " + db + "tables", signedIn, tables.createOfInstance, says[wire.DatabaseTable, wire.DatabaseTable]("database.createDatabaseTable", "")},
		{"GET " + db + "tables/{table}", signedIn, tables.getOfInstance, says[none, wire.DatabaseTable]("database.getDatabaseTable", "")},
		{"DELETE " + db + "tables/{table}", signedIn, tables.delete, says[none, wire.Empty]("database.deleteDatabaseTable", "")},
		{"POST " + db + "credentials", signedIn, instances.credential, says[wire.GenerateInstanceCredential, wire.InstanceCredential]("database.generateDatabaseCredential", "")},
		{"GET " + db + "instances/{project}/synced_tables", signedIn, synced.listOfInstance, says[none, wire.ListSyncedDatabaseTables]("database.listSyncedDatabaseTables", "page_size page_token")},
		{"POST " + db + "synced_tables", signedIn, synced.createInInstance, says[wire.SyncedDatabaseTable, wire.SyncedDatabaseTable]("database.createSyncedDatabaseTable", "")},
		{"POST " + db + "catalogs", signedIn, catalogs.createOfInstance, says[wire.DatabaseCatalog, wire.DatabaseCatalog]("database.createDatabaseCatalog", "")},
		{"GET " + db + "catalogs/{catalog}", signedIn, catalogs.getOfInstance, says[none, wire.DatabaseCatalog]("database.getDatabaseCatalog", "")},
		{"PATCH " + db + "catalogs/{catalog}", signedIn, catalogs.updateOfInstance, says[wire.DatabaseCatalog, wire.DatabaseCatalog]("database.updateDatabaseCatalog", "update_mask")},
		{"DELETE " + db + "catalogs/{catalog}", signedIn, catalogs.deleteOfInstance, says[none, wire.Empty]("database.deleteDatabaseCatalog", "")},
		{"GET " + db + "instances/{project}/catalogs", signedIn, catalogs.listOfInstance, says[none, wire.ListDatabaseCatalogs]("database.listDatabaseCatalogs", "page_size page_token")},
		{"GET " + db + "synced_tables/{table}", ofTable, synced.getOfInstance, says[none, wire.SyncedDatabaseTable]("database.getSyncedDatabaseTable", "")},
		{"PATCH " + db + "synced_tables/{table}", ofTable, synced.updateOfInstance, says[wire.SyncedDatabaseTable, wire.SyncedDatabaseTable]("database.updateSyncedDatabaseTable", "update_mask")},
		{"DELETE " + db + "synced_tables/{table}", ofTable, synced.deleteOfInstance, says[none, wire.Empty]("database.deleteSyncedDatabaseTable", "purge_data")},

		{"POST " + pg + "projects", signedIn, projects.create, says[wire.Project, wire.Operation]("postgres.createProject", "project_id")},
		{"GET " + pg + "projects", signedIn, projects.list, says[none, wire.ListProjects]("postgres.listProjects", "page_size page_token show_deleted")},
		{"GET " + pg + project, signedIn, projects.get, says[none, wire.Project]("postgres.getProject", "")},
		{"PATCH " + pg + project, signedIn, projects.update, says[wire.Project, wire.Operation]("postgres.updateProject", "update_mask")},
		{"DELETE " + pg + project, signedIn, projects.delete, says[none, wire.Operation]("postgres.deleteProject", "purge")},
		{"POST " + pg + project + "/undelete", signedIn, projects.undelete, says[none, wire.Operation]("postgres.undeleteProject", "")},
		{"POST " + pg + project + "/branches", signedIn, branches.create, says[wire.Branch, wire.Operation]("postgres.createBranch", "branch_id replace_existing")},
		{"GET " + pg + project + "/branches", signedIn, branches.list, says[none, wire.ListBranches]("postgres.listBranches", "page_size page_token show_deleted")},
		{"GET " + pg + branch, signedIn, branches.get, says[none, wire.Branch]("postgres.getBranch", "")},
		{"PATCH " + pg + branch, signedIn, branches.update, says[wire.Branch, wire.Operation]("postgres.updateBranch", "update_mask")},
		{"DELETE " + pg + branch, signedIn, branches.delete, says[none, wire.Operation]("postgres.deleteBranch", "allow_missing purge")},
		{"POST " + pg + branch + "/undelete", signedIn, branches.undelete, says[none, wire.Operation]("postgres.undeleteBranch", "")},
		{"POST " + pg + project + "/snapshots", signedIn, snapshots.create, says[wire.Snapshot, wire.Operation]("postgres.createSnapshot", "snapshot_id")},
		{"GET " + pg + project + "/snapshots", signedIn, snapshots.list, says[none, wire.ListSnapshots]("postgres.listSnapshots", "page_size page_token")},
		{"GET " + pg + snapshot, signedIn, snapshots.get, says[none, wire.Snapshot]("postgres.getSnapshot", "")},
		{"DELETE " + pg + snapshot, signedIn, snapshots.delete, says[none, wire.Operation]("postgres.deleteSnapshot", "")},
		{"POST " + pg + branch + "/endpoints", signedIn, endpoints.create, says[wire.Endpoint, wire.Operation]("postgres.createEndpoint", "endpoint_id replace_existing")},
		{"GET " + pg + branch + "/endpoints", signedIn, endpoints.list, says[none, wire.ListEndpoints]("postgres.listEndpoints", "page_size page_token")},
		{"GET " + pg + endpoint, signedIn, endpoints.get, says[none, wire.Endpoint]("postgres.getEndpoint", "")},
		{"PATCH " + pg + endpoint, signedIn, endpoints.update, says[wire.Endpoint, wire.Operation]("postgres.updateEndpoint", "update_mask")},
		{"DELETE " + pg + endpoint, signedIn, endpoints.delete, says[none, wire.Operation]("postgres.deleteEndpoint", "")},
		{"POST " + pg + branch + "/databases", mayUse, databases.create, says[wire.PostgresDatabase, wire.Operation]("postgres.createDatabase", "database_id replace_existing")},
		{"GET " + pg + branch + "/databases", signedIn, databases.list, says[none, wire.ListPostgresDatabases]("postgres.listDatabases", "page_size page_token")},
		{"GET " + pg + branch + "/databases/{database}", signedIn, databases.get, says[none, wire.PostgresDatabase]("postgres.getDatabase", "")},
		{"PATCH " + pg + branch + "/databases/{database}", mayUse, databases.update, says[wire.PostgresDatabase, wire.Operation]("postgres.updateDatabase", "update_mask")},
		{"DELETE " + pg + branch + "/databases/{database}", mayUse, databases.delete, says[none, wire.Operation]("postgres.deleteDatabase", "")},
		{"POST " + pg + dataAPI, signedIn, dataAPIs.create, says[wire.DataAPI, wire.Operation]("postgres.createDataApi", "")},
		{"GET " + pg + dataAPI, signedIn, dataAPIs.get, says[none, wire.DataAPI]("postgres.getDataApi", "")},
		{"PATCH " + pg + dataAPI, signedIn, dataAPIs.update, says[wire.DataAPI, wire.Operation]("postgres.updateDataApi", "update_mask")},
		{"DELETE " + pg + dataAPI, signedIn, dataAPIs.delete, says[none, wire.Operation]("postgres.deleteDataApi", "")},
		{"GET " + pg + endpoint + "/compute-instances", signedIn, computes.list, says[none, wire.ListComputeInstances]("postgres.listComputeInstances", "page_size page_token")},
		{"GET " + pg + endpoint + "/compute-instances/{instance}", signedIn, computes.get, says[none, wire.ComputeInstance]("postgres.getComputeInstance", "")},
		{"GET " + pg + branch + "/snapshot-schedule", signedIn, snapshots.schedule, says[none, wire.SnapshotSchedule]("postgres.getSnapshotSchedule", "")},
		{"PATCH " + pg + branch + "/snapshot-schedule", signedIn, snapshots.setSchedule, says[wire.SnapshotSchedule, wire.SnapshotSchedule]("postgres.updateSnapshotSchedule", "update_mask")},
		{"POST " + pg + "tables", signedIn, tables.create, says[wire.PostgresTable, wire.PostgresTable]("postgres.createTable", "")},
		{"GET " + pg + "tables/{table}", signedIn, tables.get, says[none, wire.PostgresTable]("postgres.getTable", "")},
		{"DELETE " + pg + "tables/{table}", signedIn, tables.delete, says[none, wire.Empty]("postgres.deleteTable", "")},
		{"POST " + pg + "catalogs", signedIn, catalogs.create, says[wire.PostgresCatalog, wire.Operation]("postgres.createCatalog", "catalog_id")},
		{"GET " + pg + "catalogs/{catalog}", signedIn, catalogs.get, says[none, wire.PostgresCatalog]("postgres.getCatalog", "")},
		{"DELETE " + pg + "catalogs/{catalog}", signedIn, catalogs.delete, says[none, wire.Operation]("postgres.deleteCatalog", "")},
		{"POST " + pg + "credentials", signedIn, endpoints.credential, says[wire.GenerateCredential, wire.Credential]("postgres.generateDatabaseCredential", "")},
		{"POST " + pg + configs, signedIn, feeds.create, says[wire.CdfConfig, wire.Operation]("postgres.createCdfConfig", "cdf_config_id")},
		{"GET " + pg + configs, signedIn, feeds.list, says[none, wire.ListCdfConfigs]("postgres.listCdfConfigs", "page_size page_token")},
		{"GET " + pg + config, signedIn, feeds.get, says[none, wire.CdfConfig]("postgres.getCdfConfig", "")},
		{"DELETE " + pg + config, signedIn, feeds.delete, says[none, wire.Operation]("postgres.deleteCdfConfig", "force")},
		{"GET " + pg + config + "/cdf-statuses", signedIn, feeds.listStatuses, says[none, wire.ListCdfStatuses]("postgres.listCdfStatuses", "page_size page_token")},
		{"GET " + pg + config + "/cdf-statuses/{status}", signedIn, feeds.getStatus, says[none, wire.CdfStatus]("postgres.getCdfStatus", "")},
		{"POST " + pg + "synced_tables", signedIn, synced.create, says[wire.SyncedTable, wire.Operation]("postgres.createSyncedTable", "synced_table_id")},
		{"GET " + pg + "synced_tables/{table}", ofTable, synced.get, says[none, wire.SyncedTable]("postgres.getSyncedTable", "")},
		{"DELETE " + pg + "synced_tables/{table}", ofTable, synced.delete, says[none, wire.Operation]("postgres.deleteSyncedTable", "")},
		{"GET " + pg + "{operation...}", signedIn, ops.get, says[none, wire.Operation]("postgres.getOperation", "")},

		{"GET /api/2.0/pipelines", signedIn, pipelines.list, says[none, wire.ListPipelines]("pipelines.listPipelines", "filter max_results page_token")},
		{"GET /api/2.0/pipelines/{pipeline}", ofPipeline, pipelines.get, says[none, wire.Pipeline]("pipelines.getPipeline", "")},
		{"GET /api/2.0/pipelines/{pipeline}/updates", ofPipeline, pipelines.updates, says[none, wire.ListUpdates]("pipelines.listUpdates", "max_results page_token")},
		{"POST /api/2.0/pipelines/{pipeline}/updates", ofPipeline, pipelines.start, says[wire.StartUpdate, wire.StartUpdateResponse]("pipelines.startUpdate", "")},
		{"GET /api/2.0/pipelines/{pipeline}/updates/{update}", ofPipeline, pipelines.update, says[none, wire.GetUpdate]("pipelines.getUpdate", "")},
		{"GET /api/2.0/pipelines/{pipeline}/events", ofPipeline, pipelines.events, says[none, wire.ListPipelineEvents]("pipelines.listPipelineEvents", "max_results page_token")},
		{"POST /api/2.0/pipelines/{pipeline}/stop", ofPipeline, pipelines.stop, says[none, wire.Empty]("pipelines.stop", "")},

		{"POST /api/2.0/token/create", signedIn, tokens.create, says[wire.CreateToken, wire.CreateTokenResponse]("token.create", "")},
		{"GET /api/2.0/token/list", signedIn, tokens.list, says[none, wire.ListTokens]("token.list", "")},
		{"POST /api/2.0/token/delete", signedIn, tokens.revoke, says[wire.RevokeToken, wire.Empty]("token.delete", "")},

		{"GET " + mine + "status", signedIn, own.status, says[none, wire.Status]("tarn.status", "")},
		{"GET " + mine + "connections", signedIn, own.connections, says[none, wire.GatewaySessions]("tarn.connections", "")},
		{"GET " + mine + "store/stats", adminOnly, store.stats, says[none, wire.StoreStats]("tarn.storeStats", "")},
		{"POST " + mine + "store/checks", adminOnly, store.begin, says[none, wire.StoreCheck]("tarn.beginStoreCheck", "")},
		{"GET " + mine + "store/checks/{check}", adminOnly, store.check, says[none, wire.StoreCheck]("tarn.getStoreCheck", "")},
		{"GET " + mine + branch + "/connection", signedIn, own.connection, says[none, wire.Connection]("tarn.connection", "")},
		{"POST " + mine + branch + "/endpoints/{verb}", mayUse, own.act, says[none, wire.Compute]("tarn.actOnEndpoint", "")},
		{"GET " + mine + branch + "/window", signedIn, pasts.window, says[none, wire.Window]("tarn.window", "")},
		{"POST " + mine + project + "/branches/{verb}", signedIn, pasts.act, says[wire.RestoreBranch, wire.Operation]("tarn.actOnBranch", "")},
		{"GET " + mine + "synced_tables", signedIn, synced.list, says[none, wire.ListPostgresSyncedTables]("tarn.listSyncedTables", "project page_size page_token")},
		{"PATCH " + mine + "synced_tables/{table}", ofTable, synced.change, says[wire.SyncedTableChange, wire.SyncedTable]("tarn.changeSyncedTable", "")},
		{"POST " + mine + "synced_tables/{table}/verify", ofTable, synced.verify, says[none, wire.Verification]("tarn.verifySyncedTable", "")},
		{"GET " + mine + "synced_tables/{table}/dead_letters", ofTable, synced.deadLetters, says[none, wire.ListDeadLetters]("tarn.listDeadLetters", "page_size page_token")},
		{"POST " + mine + "synced_tables/{table}/replay", ofTable, synced.replay, says[wire.Replay, wire.Replayed]("tarn.replayDeadLetters", "")},
		{"PATCH " + mine + config, signedIn, feeds.update, says[wire.FeedSettings, wire.CdfConfig]("tarn.updateFeed", "")},
		{"POST " + mine + config + "/resync", signedIn, feeds.resync, says[wire.ResyncFeed, wire.CdfConfig]("tarn.resyncFeed", "")},
		{"POST " + mine + config + "/verify", signedIn, feeds.verify, says[wire.VerifyFeed, wire.FeedVerdict]("tarn.verifyFeed", "")},

		{"/", public, host.nowhere, about{}},
	}...)
	return docs.rows
}
