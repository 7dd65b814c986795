package main

import (
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn/internal/api/wire"
)

// version is Tarn's own.
func version() string { return "0.1.0-dev" }

func versionCommand(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return sh.show(v, func() { sh.say("tarn %s (%s, %s)", version(), v["go"], v["platform"]) })
		},
	}
}

func statusCommand(sh *shell) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the server, its endpoints and what runs", Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := sh.client()
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return sh.show(s, func() {
				sh.say("Tarn %s at %s, workspace %s, signed in as %s", s.Version, c.Host(), s.WorkspaceID, s.User)
				if s.CAFile != "" {
					sh.say("Certificate authority: %s", s.CAFile)
				}
				if s.Storage != nil {
					sh.say("Storage: %s%s", s.Storage.URL, controlBehind(*s.Storage))
					if s.Storage.LakeOutside != "" {
						sh.say("Managed tables: %s, which the storage does not have: copy it yourself", s.Storage.LakeOutside)
					}
				}
				if s.Volumes != "" {
					sh.say("Volumes: %s", s.Volumes)
				}
				if len(s.Endpoints) == 0 {
					sh.say("No project yet: tarn project create NAME")
					return
				}
				sh.say("")
				var rows [][]string
				for _, e := range s.Endpoints {
					rows = append(rows, []string{e.Name, e.Host, strconv.Itoa(e.Port), e.State})
				}
				sh.table("ENDPOINT HOST PORT STATE", rows)
				if s.Storage != nil && len(s.Storage.Branches) > 0 {
					sh.say("")
					rows = nil
					for _, b := range s.Storage.Branches {
						rows = append(rows, []string{b.Branch, archived(b), cameBack(b)})
					}
					sh.table("BRANCH ARCHIVE BACK", rows)
				}
				if len(s.Computes) == 0 {
					return
				}
				sh.say("")
				rows = nil
				for _, p := range s.Computes {
					rows = append(rows, []string{p.Endpoint, p.Branch, p.State, computeSize(p), computeLag(p), strconv.Itoa(p.PID), shortTime(p.StartTime), dash(p.Message)})
				}
				sh.table("COMPUTE BRANCH STATE CU LAG PID STARTED MESSAGE", rows)
			})
		},
	}
}

// controlBehind warns of a control database that is not copied as it should be:
// a second after each change.
func controlBehind(s wire.Storage) string {
	const usual = 10
	if s.ControlSecs < usual {
		return ""
	}
	return fmt.Sprintf(" (the control database was copied %s ago)", time.Duration(s.ControlSecs*float64(time.Second)).Round(time.Second))
}

// computeSize says how large a compute is now, and when that cannot change.
func computeSize(c wire.Compute) string {
	switch {
	case c.CU == 0:
		return "-"
	case c.FixedBy != "":
		return fmt.Sprintf("%g, fixed: no control groups", c.CU)
	}
	return fmt.Sprintf("%g", c.CU)
}

// computeLag says how far a replica is behind.
func computeLag(c wire.Compute) string {
	switch {
	case !c.ReadOnly || c.LSN == "":
		return "-"
	case c.LagBytes == 0:
		return "none"
	}
	return fmt.Sprintf("%s, %s", size(c.LagBytes), time.Duration(c.LagSecs*float64(time.Second)).Round(time.Millisecond))
}

// archived says how far the object store has a branch.
func archived(b wire.BranchCopy) string {
	switch {
	case b.Away:
		return "all there is"
	case b.Waiting:
		return "waits for the storage"
	case b.LagBytes == 0:
		return "complete"
	}
	return fmt.Sprintf("%s behind, %s", size(b.LagBytes), time.Duration(b.LagSecs*float64(time.Second)).Round(time.Second))
}

// cameBack says how far a branch came back from the object store.
func cameBack(b wire.BranchCopy) string {
	switch {
	case b.Problem != "":
		return "no: " + b.Problem
	case b.Away:
		return "not yet: at its first connection"
	case b.BackLSN != "":
		return "up to LSN " + b.BackLSN + ", " + shortTime(b.BackTime)
	}
	return "-"
}
