package api

import (
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
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
	type place struct{ id, at string }
	rows := []route{
		{"GET " + scimPrefix + "Me", signedIn, (&scimDoor{identity: identity}).me, says[none, wire.User]("iam.me", "excludedAttributes attributes")},
		{"POST " + mine + "password", signedIn, secrets.setPassword, says[wire.SetPassword, wire.Empty]("tarn.setPassword", "")},
	}
	for path, kind := range map[string]tarn.PrincipalType{
		"Users": tarn.PrincipalUser, "ServicePrincipals": tarn.PrincipalService, "Groups": tarn.PrincipalGroup,
	} {
		d := &scimDoor{identity: identity, kind: kind}
		rows = append(rows,
			route{"GET " + scimPrefix + path, signedIn, d.list, says[none, wire.ScimList[wire.User]]("iam.list"+path, "filter startIndex count sortBy sortOrder attributes excludedAttributes")},
			route{"POST " + scimPrefix + path, adminOnly, d.create, says[wire.User, wire.User]("iam.create"+path, "")},
			route{"GET " + scimPrefix + path + "/{id}", signedIn, d.get, says[none, wire.User]("iam.get"+path, "attributes excludedAttributes")},
			route{"PUT " + scimPrefix + path + "/{id}", adminOnly, d.replace, says[wire.User, wire.User]("iam.replace"+path, "")},
			route{"PATCH " + scimPrefix + path + "/{id}", adminOnly, d.patch, says[wire.ScimPatch, wire.User]("iam.patch"+path, "")},
			route{"DELETE " + scimPrefix + path + "/{id}", adminOnly, d.delete, says[none, wire.Empty]("iam.delete"+path, "")},
		)
	}
	// The account's id stands in the path or not; there is one account here.
	for _, of := range []place{{"oauth.", accounts + "servicePrincipals/{id}/"}, {"oauth.account", accounts + "{account}/servicePrincipals/{id}/"}} {
		rows = append(rows,
			route{"POST " + of.at + "credentials/secrets", adminOnly, secrets.create, says[wire.CreateSecret, wire.Secret](of.id+"CreateSecret", "")},
			route{"GET " + of.at + "credentials/secrets", adminOnly, secrets.list, says[none, wire.ListSecrets](of.id+"ListSecrets", "")},
			route{"DELETE " + of.at + "credentials/secrets/{secret}", adminOnly, secrets.delete, says[none, wire.Empty](of.id+"DeleteSecret", "")},
		)
	}
	for _, of := range []place{{"oauth.account", accounts + "{account}/"}, {"oauth.servicePrincipal", accounts + "{account}/servicePrincipals/{id}/"}} {
		rows = append(rows,
			route{"POST " + of.at + "federationPolicies", adminOnly, secrets.createPolicy, says[wire.FederationPolicy, wire.FederationPolicy](of.id+"CreatePolicy", "policy_id")},
			route{"GET " + of.at + "federationPolicies", adminOnly, secrets.listPolicies, says[none, wire.ListPolicies](of.id+"ListPolicies", "")},
			route{"GET " + of.at + "federationPolicies/{policy}", adminOnly, secrets.getPolicy, says[none, wire.FederationPolicy](of.id+"GetPolicy", "")},
			route{"PATCH " + of.at + "federationPolicies/{policy}", adminOnly, secrets.updatePolicy, says[wire.FederationPolicy, wire.FederationPolicy](of.id+"UpdatePolicy", "update_mask")},
			route{"DELETE " + of.at + "federationPolicies/{policy}", adminOnly, secrets.deletePolicy, says[none, wire.Empty](of.id+"DeletePolicy", "")},
		)
	}
	for _, kind := range []string{"database-instances", "database-projects"} {
		d := &permissionDoor{control: c.Control, kind: kind}
		at := " /api/2.0/permissions/" + kind + "/{project}"
		rows = append(rows,
			route{"GET" + at, signedIn, d.get, says[none, wire.ObjectPermissions]("permissions.get."+kind, "")},
			route{"PUT" + at, signedIn, d.set, says[wire.SetPermissions, wire.ObjectPermissions]("permissions.set."+kind, "")},
			route{"PATCH" + at, signedIn, d.update, says[wire.SetPermissions, wire.ObjectPermissions]("permissions.update."+kind, "")},
			route{"GET" + strings.Replace(at, "{project}", "{object}", 1) + "/permissionLevels", signedIn, d.levels, says[none, wire.PermissionLevels]("permissions.getLevels."+kind, "")},
		)
	}
	return rows
}
