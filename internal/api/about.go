package api

import (
	"reflect"
	"strings"
)

// about is what a route says of itself in the API's document: see says.
type about struct {
	id     string       // operation id, unique: service.method
	in     reflect.Type // of the body; nil = it reads none
	out    reflect.Type // of a good answer
	params []string     // names of the query's parameters, of those in parameters
}

// none is the body of requests that have none.
type none struct{}

// says describes a route that reads an In and answers an Out: id is its
// operation's, service.method, and query names its parameters, by blanks.
func says[In, Out any](id, query string) about {
	a := about{id: id, out: reflect.TypeFor[Out](), params: strings.Fields(query)}
	if in := reflect.TypeFor[In](); in != reflect.TypeFor[none]() {
		a.in = in
	}
	return a
}

// parameter is what one query parameter is, wherever it is read.
type parameter struct {
	kind string // of JSON: string, integer, boolean
	text string
}

// parameters are all that any route reads. A name means the same everywhere.
var parameters = map[string]parameter{
	"allow_missing":          {"boolean", "whether it is no error that there is no such thing"},
	"attributes":             {"string", "names of the attributes to answer, by commas; absent = all"},
	"branch_id":              {"string", "id of the new branch: 1 to 63 of a-z, 0-9 and -, a letter first"},
	"catalog_id":             {"string", "name of the new catalog"},
	"catalog_name":           {"string", "name of the catalog to list"},
	"cdf_config_id":          {"string", "id of the new feed; absent = the Postgres schema's name"},
	"column_name":            {"string", "column of the table"},
	"count":                  {"integer", "how many to answer at most"},
	"database_id":            {"string", "id of the new database, 4 to 63 characters; absent = made from its name"},
	"database_instance_name": {"string", "name of the instance; the path names it too"},
	"endpoint_id":            {"string", "id of the new endpoint: 1 to 63 of a-z, 0-9 and -, a letter first"},
	"include_entity_lineage": {"boolean", "accepted; what moved the rows is always answered"},
	"excludedAttributes":     {"string", "names of attributes to leave out, by commas"},
	"filter":                 {"string", "which to list"},
	"force":                  {"boolean", "whether what depends on it goes with it"},
	"limit":                  {"integer", "how many to answer at most"},
	"max_results":            {"integer", "how many to answer at most"},
	"page_size":              {"integer", "how many to answer at most; absent or 0 = 100, which is also the most"},
	"page_token":             {"string", "next_page_token of the page before; absent = the first page"},
	"policy_id":              {"string", "id of the new policy; absent = made here"},
	"principal":              {"string", "name of the one whose grants to answer; absent = everybody's"},
	"project":                {"string", "resource name of the project to list; absent = all"},
	"project_id":             {"string", "id of the new project: 1 to 63 of a-z, 0-9 and -, a letter first"},
	"purge":                  {"boolean", "whether it goes at once and for good"},
	"purge_data":             {"boolean", "whether the Postgres table is dropped too"},
	"reassign_owned_to":      {"string", "role that takes over what the deleted one owns"},
	"replace_existing":       {"boolean", "whether one that exists is changed to what is asked"},
	"role_id":                {"string", "id of the new role, 4 to 63 characters; absent = made from its name"},
	"schema_name":            {"string", "name of the schema to list"},
	"table_name":             {"string", "full name of the table, catalog.schema.table"},
	"show_deleted":           {"boolean", "whether what was deleted and can be brought back is listed too"},
	"snapshot_id":            {"string", "id of the new snapshot: 1 to 63 of a-z, 0-9 and -, a letter first"},
	"sortBy":                 {"string", "name of the attribute to sort by"},
	"sortOrder":              {"string", "ascending or descending"},
	"startIndex":             {"integer", "number of the first to answer, from 1"},
	"synced_table_id":        {"string", "catalog.schema.table of the new synced table"},
	"uid":                    {"string", "uid of what is looked for"},
	"update_mask":            {"string", "paths of the fields to change, by commas; absent or * = those the body gives"},
	"version":                {"integer", "version of the Delta table; absent = the newest"},
}
