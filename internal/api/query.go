package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"sort"
	"strconv"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/controldb"
)

// query is one request on its way in: text that becomes values here.
type query struct {
	r    *http.Request
	who  tarn.Principal
	base string // URL of this server as the client knows it

	access *control.Access
	detail string              // for the audit; no secret
	child  *tarn.ChildInstance // that the path names as an instance; nil = none
}

// instance is the branch of the instance that a path names.
func (q *query) instance() (tarn.BranchName, error) {
	if q.child != nil {
		return q.child.Branch, nil
	}
	n, err := q.project()
	return n.Branch(tarn.DefaultBranch), err
}

// A name in a path that cannot be a name is the name of nothing: 404, so that
// "get, else create" programs reach the create, which tells the rule.
func nothing(err error) error {
	return tarn.NotFound("%s", err.Error())
}

func (q *query) project() (tarn.ProjectName, error) {
	if q.child != nil {
		return q.child.Branch.Parent(), nil
	}
	id, err := tarn.ParseID("project", q.r.PathValue("project"))
	if err != nil {
		return tarn.ProjectName{}, nothing(err)
	}
	return tarn.ProjectName{Project: id}, nil
}

func (q *query) branch() (tarn.BranchName, error) {
	p, err := q.project()
	if err != nil {
		return tarn.BranchName{}, err
	}
	id, err := tarn.ParseID("branch", q.r.PathValue("branch"))
	if err != nil {
		return tarn.BranchName{}, nothing(err)
	}
	return p.Branch(id), nil
}

func (q *query) snapshot() (tarn.SnapshotName, error) {
	p, err := q.project()
	if err != nil {
		return tarn.SnapshotName{}, err
	}
	id, err := tarn.ParseID("snapshot", q.r.PathValue("snapshot"))
	if err != nil {
		return tarn.SnapshotName{}, nothing(err)
	}
	return p.Snapshot(id), nil
}

func (q *query) endpoint() (tarn.EndpointName, error) {
	return q.endpointNamed(q.r.PathValue("endpoint"))
}

func (q *query) endpointNamed(id string) (tarn.EndpointName, error) {
	b, err := q.branch()
	if err != nil {
		return tarn.EndpointName{}, err
	}
	id, err = tarn.ParseID("endpoint", id)
	if err != nil {
		return tarn.EndpointName{}, nothing(err)
	}
	return b.Endpoint(id), nil
}

func (q *query) table() (tarn.TableName, error) {
	n, err := tarn.ParseTableName(q.r.PathValue("table"))
	if err != nil {
		return tarn.TableName{}, nothing(err)
	}
	return n, nil
}

// text returns a query parameter; "" when absent.
func (q *query) text(name string) string { return q.r.URL.Query().Get(name) }

// flag reads a boolean query parameter; nil when absent.
func (q *query) flag(name string) (*bool, error) {
	s := q.text(name)
	if s == "" {
		return nil, nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return nil, badField(name, "got %q, want true or false", s)
	}
	return &v, nil
}

// number reads a query parameter that is not negative; 0 when absent.
func (q *query) number(name string) (int, error) {
	s := q.text(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, badField(name, "got %q, want a number that is not negative", s)
	}
	return n, nil
}

// maxPage is the published maximum page size.
const maxPage = 100

// deleted reads whether a listing shows what can be brought back.
func (q *query) deleted() (controldb.Deleted, error) {
	show, err := q.flag("show_deleted")
	return controldb.Deleted(show != nil && *show), err
}

// page reads page_token and the page's size from parameter size.
func (q *query) page(size string) (control.Page, error) {
	n, err := q.number(size)
	if err != nil {
		return control.Page{}, err
	}
	if n == 0 || n > maxPage {
		n = maxPage
	}
	return control.Page{Size: n, Token: q.text("page_token")}, nil
}

// pageOf cuts one page out of a listing that is whole in memory. Tokens name
// the last key shown, so that a listing that changes skips and repeats nothing
// else.
func pageOf[T any](all []T, key func(T) string, pg control.Page) ([]T, string, error) {
	after, err := base64.RawURLEncoding.DecodeString(pg.Token)
	if err != nil {
		return nil, "", badField("page_token", "this server did not give it out")
	}
	sort.SliceStable(all, func(i, j int) bool { return key(all[i]) < key(all[j]) })
	if pg.Token != "" {
		all = all[sort.Search(len(all), func(i int) bool { return key(all[i]) > string(after) }):]
	}
	if len(all) <= pg.Size {
		return all, "", nil
	}
	all = all[:pg.Size]
	return all, base64.RawURLEncoding.EncodeToString([]byte(key(all[len(all)-1]))), nil
}

// decode reads the body into v. No body is an empty object; fields nobody
// knows are ignored, as the published API does.
func (q *query) decode(v any) error {
	b, err := io.ReadAll(q.r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &failure{
			status: http.StatusBadRequest, code: "INVALID_PARAMETER_VALUE",
			msg: "the request's body is larger than " + strconv.Itoa(maxBody) + " bytes",
		}
	case err != nil:
		return tarn.Invalid("read the request's body: %w", err)
	case len(b) == 0:
		return nil
	}
	if vs := violations(v, b); len(vs) > 0 {
		return badFields(vs)
	}
	var wrong *json.UnmarshalTypeError
	switch err := json.Unmarshal(b, v); {
	case errors.As(err, &wrong) && wrong.Field == "":
		return malformed("the request's body is a JSON " + wrong.Value + ", want an object")
	case errors.As(err, &wrong):
		return badField(wrong.Field, "got a JSON %s, want %s", wrong.Value, jsonWord(wrong.Type))
	case err != nil:
		return malformed("the request's body is not JSON: " + err.Error())
	}
	return nil
}

func malformed(msg string) *failure {
	return &failure{status: http.StatusBadRequest, code: "MALFORMED_REQUEST", msg: msg}
}

// jsonWord says in JSON's words what a Go field holds.
func jsonWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return jsonWord(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "an array"
	}
	return "an object"
}
