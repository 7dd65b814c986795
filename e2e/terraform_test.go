package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// terraform sends what the published provider does for a resource.
type terraform struct {
	*testing.T
	host, token string
}

type object = map[string]any

// send asks the API and gives the status and the answer; an operation is
// followed until it is done, as the provider does.
func (tf terraform) send(method, path string, body any) (int, object) {
	tf.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		tf.Fatal(err)
	}
	if body == nil {
		b = nil
	}
	req, err := http.NewRequestWithContext(testContext(tf.T, 2*time.Minute), method, tf.host+"/api/2.0/"+path, bytes.NewReader(b))
	if err != nil {
		tf.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+tf.token)
	text, status := fetch(tf.T, req)
	var got object
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		tf.Fatalf("%s %s: %d, no JSON: %s", method, path, status, text)
	}
	if name, _ := got["name"].(string); strings.Contains(name, "/operations/") {
		if fault := got["error"]; fault != nil {
			tf.Fatalf("%s %s: %v", method, path, fault)
		}
		if got["done"] != true {
			<-time.After(100 * time.Millisecond)
			return tf.send("GET", "postgres/"+name, nil)
		}
	}
	return status, got
}

// until waits for what an instance comes to without an operation.
func (tf terraform) until(what string, holds func() bool) {
	tf.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); <-time.After(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			tf.Fatalf("not %s after two minutes", what)
		}
	}
}

func (tf terraform) good(method, path string, body any) object {
	tf.Helper()
	status, got := tf.send(method, path, body)
	if status != http.StatusOK {
		tf.Fatalf("%s %s: %d %v", method, path, status, got)
	}
	return got
}

// clean reads a resource and fails where it is not what was set, which the
// provider would plan to change again.
func (tf terraform) clean(path string, set object) {
	tf.Helper()
	got := tf.good("GET", path, nil)
	if st, ok := got["status"].(object); ok {
		got = st // a spec of the postgres service comes back as status
	}
	b, err := json.Marshal(set)
	if err != nil {
		tf.Fatal(err)
	}
	var want object
	if err := json.Unmarshal(b, &want); err != nil {
		tf.Fatal(err)
	}
	for k, v := range want {
		if !reflect.DeepEqual(got[k], v) {
			tf.Errorf("%s: %s is %v, was set to %v", path, k, got[k], v)
		}
	}
}

// gone deletes a resource, and again: the second time must say that there is none.
func (tf terraform) gone(path, query string) {
	tf.Helper()
	tf.good("DELETE", path+query, nil)
	for _, method := range []string{"GET", "DELETE"} {
		if status, got := tf.send(method, path, nil); status != http.StatusNotFound {
			tf.Errorf("%s %s after it was deleted: %d %v", method, path, status, got)
		}
	}
}

func with(o object, more object) object {
	all := object{}
	for _, m := range []object{o, more} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

// What Terraform's provider is known to send for its resources, with the masks
// that are fixed in its code: create, read with a clean plan, update, delete.
func TestTerraformResources(t *testing.T) {
	in := start(t)
	p := in.profile()
	tf := terraform{t, p.Host, p.Token}

	inst := object{"name": "tf-inst", "capacity": "CU_1", "node_count": 1, "enable_readable_secondaries": false, "enable_pg_native_login": true,
		"retention_window_in_days": 7, "stopped": false, "usage_policy_id": "up-1", "custom_tags": []object{{"key": "team", "value": "a"}}}
	tf.good("POST", "database/instances", inst)
	const one = "database/instances/tf-inst"
	tf.until("AVAILABLE", func() bool { return tf.good("GET", one, nil)["state"] == "AVAILABLE" })
	tf.clean(one, inst)
	inst = with(inst, object{"capacity": "CU_2", "retention_window_in_days": 14, "enable_pg_native_login": false, "usage_policy_id": "up-2", "custom_tags": []object{{"key": "team", "value": "b"}}})
	tf.good("PATCH", one+"?update_mask=capacity,custom_tags,enable_pg_native_login,enable_readable_secondaries,node_count,retention_window_in_days,stopped,usage_policy_id", inst)
	tf.clean(one, inst)

	cat := object{"name": "tf_cat", "database_instance_name": "tf-inst", "database_name": "databricks_postgres"}
	tf.good("POST", "database/catalogs", with(cat, object{"create_database_if_not_exists": true}))
	tf.clean("database/catalogs/tf_cat", cat)
	tf.good("PATCH", "database/catalogs/tf_cat?update_mask=create_database_if_not_exists,database_instance_name,database_name", cat)
	tf.clean("database/catalogs/tf_cat", cat)

	path := filepath.Join(in.data, "lake", "user_profiles")
	in.python("user_profiles.py", "make", path)
	in.addCatalog("analytics")
	in.tarn("table", "register", "analytics.gold.user_profiles", path)
	table := object{"name": "tf_cat.gold.profiles", "database_instance_name": "tf-inst", "logical_database_name": "databricks_postgres", "spec": object{
		"source_table_full_name": "analytics.gold.user_profiles", "primary_key_columns": []string{"user_id"}, "scheduling_policy": "TRIGGERED",
		"create_database_objects_if_missing": true, "new_pipeline_spec": object{"storage_catalog": "analytics", "storage_schema": "gold", "budget_policy_id": "b"}}}
	tf.good("POST", "database/synced_tables", table)
	const synced = "database/synced_tables/tf_cat.gold.profiles"
	tf.clean(synced, table)
	tf.good("PATCH", synced+"?update_mask=database_instance_name,logical_database_name,spec", table)
	tf.clean(synced, table)
	tf.gone(synced, "")
	tf.gone("database/catalogs/tf_cat", "")

	const project = "postgres/projects/tf"
	spec := object{"display_name": "TF", "history_retention_duration": "604800s", "budget_policy_id": "b", "enable_pg_native_login": true, "custom_tags": []object{{"key": "k", "value": "v"}}}
	tf.good("POST", "postgres/projects?project_id=tf", object{"spec": spec, "initial_branch_spec": object{"is_protected": false}})
	tf.clean(project, spec)
	spec = with(spec, object{"display_name": "TF 2", "history_retention_duration": "172800s", "enable_pg_native_login": false})
	tf.good("PATCH", project+"?update_mask=initial_branch_spec,initial_endpoint_spec,spec", object{"name": "projects/tf", "spec": spec, "initial_branch_spec": object{"is_protected": false}})
	tf.clean(project, spec)

	const branch = project + "/branches/dev"
	spec = object{"source_branch": "projects/tf/branches/production", "is_protected": true}
	tf.good("POST", project+"/branches?branch_id=dev", object{"spec": with(spec, object{"no_expiry": true})})
	tf.clean(branch, spec)
	spec["is_protected"] = false
	tf.good("PATCH", branch+"?update_mask=spec", object{"spec": with(spec, object{"no_expiry": true})})
	tf.clean(branch, spec)

	const endpoint = branch + "/endpoints/primary"
	spec = object{"endpoint_type": "ENDPOINT_TYPE_READ_WRITE", "autoscaling_limit_min_cu": 0.5, "autoscaling_limit_max_cu": 2.0, "suspend_timeout_duration": "300s"}
	tf.good("POST", branch+"/endpoints?endpoint_id=primary&replace_existing=true", object{"spec": spec})
	tf.clean(endpoint, spec)
	spec = with(spec, object{"autoscaling_limit_max_cu": 4.0, "suspend_timeout_duration": "600s"})
	tf.good("PATCH", endpoint+"?update_mask=spec", object{"spec": spec})
	tf.clean(endpoint, spec)

	const role = branch + "/roles/tf-role"
	rights := object{"createdb": true, "createrole": false, "bypassrls": false}
	spec = object{"postgres_role": "tf_role", "auth_method": "NO_LOGIN", "attributes": rights}
	tf.good("POST", branch+"/roles?role_id=tf-role", object{"spec": spec})
	tf.clean(role, spec)
	spec["attributes"] = with(rights, object{"createrole": true})
	tf.good("PATCH", role+"?update_mask=spec", object{"spec": spec})
	tf.clean(role, spec)

	const database = branch + "/databases/tf-data"
	spec = object{"postgres_database": "tf_data", "role": "projects/tf/branches/dev/roles/tf-role"}
	tf.good("POST", branch+"/databases?database_id=tf-data", object{"spec": spec})
	tf.clean(database, spec)
	tf.good("PATCH", database+"?update_mask=spec", object{"spec": spec})
	tf.clean(database, spec)

	tf.gone(database, "")
	tf.gone(role, "")
	// A branch's own endpoint goes with it, which the provider takes for done.
	if _, got := tf.send("DELETE", endpoint, nil); !strings.Contains(fmt.Sprint(got["details"]), "declarative_context:MANAGED_BY_PARENT") {
		t.Errorf("delete the endpoint of a branch: %v", got)
	}
	tf.gone(branch, "?purge=true")
	tf.gone(project, "?purge=true")
	tf.good("DELETE", one+"?purge=true", nil)
	tf.until("gone", func() bool {
		status, got := tf.send("GET", one, nil)
		if status == http.StatusOK && got["state"] != "DELETING" {
			t.Errorf("an instance that is being deleted: %v", got)
		}
		return status == http.StatusNotFound
	})
}
