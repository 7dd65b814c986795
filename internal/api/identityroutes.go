package api

import (
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/control"
)

// identityRoutes are the rows of the table for who there is and who may do what.
func identityRoutes(c Config) []route {
	var identity *control.Identity
	if c.Control != nil {
		identity = c.Control.Identity
	}
	var (
		secrets  = &secretDoor{identity: identity, account: AccountID(c.Workspace)}
		accounts = "/api/2.0/accounts/"
		mine     = "/api/2.0/tarn/"
	)
	rows := []route{
		{"GET " + scimPrefix + "Me", signedIn, (&scimDoor{identity: identity}).me},
		{"POST " + mine + "password", signedIn, secrets.setPassword},
	}
	for path, kind := range map[string]tarn.PrincipalType{
		"Users": tarn.PrincipalUser, "ServicePrincipals": tarn.PrincipalService, "Groups": tarn.PrincipalGroup,
	} {
		d := &scimDoor{identity: identity, kind: kind}
		rows = append(rows,
			route{"GET " + scimPrefix + path, signedIn, d.list},
			route{"POST " + scimPrefix + path, adminOnly, d.create},
			route{"GET " + scimPrefix + path + "/{id}", signedIn, d.get},
			route{"PUT " + scimPrefix + path + "/{id}", adminOnly, d.replace},
			route{"PATCH " + scimPrefix + path + "/{id}", adminOnly, d.patch},
			route{"DELETE " + scimPrefix + path + "/{id}", adminOnly, d.delete},
		)
	}
	// The account's id stands in the path or not; there is one account here.
	for _, of := range []string{accounts + "servicePrincipals/{id}/", accounts + "{account}/servicePrincipals/{id}/"} {
		rows = append(rows,
			route{"POST " + of + "credentials/secrets", adminOnly, secrets.create},
			route{"GET " + of + "credentials/secrets", adminOnly, secrets.list},
			route{"DELETE " + of + "credentials/secrets/{secret}", adminOnly, secrets.delete},
		)
	}
	for _, of := range []string{accounts + "{account}/", accounts + "{account}/servicePrincipals/{id}/"} {
		rows = append(rows,
			route{"POST " + of + "federationPolicies", adminOnly, secrets.createPolicy},
			route{"GET " + of + "federationPolicies", adminOnly, secrets.listPolicies},
			route{"GET " + of + "federationPolicies/{policy}", adminOnly, secrets.getPolicy},
			route{"PATCH " + of + "federationPolicies/{policy}", adminOnly, secrets.updatePolicy},
			route{"DELETE " + of + "federationPolicies/{policy}", adminOnly, secrets.deletePolicy},
		)
	}
	for _, kind := range []string{"database-instances", "database-projects"} {
		d := &permissionDoor{control: c.Control, kind: kind}
		at := " /api/2.0/permissions/" + kind + "/{project}"
		rows = append(rows,
			route{"GET" + at, signedIn, d.get},
			route{"PUT" + at, signedIn, d.set},
			route{"PATCH" + at, signedIn, d.update},
			route{"GET" + strings.Replace(at, "{project}", "{object}", 1) + "/permissionLevels", signedIn, d.levels},
		)
	}
	return rows
}
