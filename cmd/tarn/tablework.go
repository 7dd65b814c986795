package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tarndb/tarn/internal/delta"
)

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func tableOptimize(sh *shell) *cobra.Command {
	var s source
	var where string
	var cluster []string
	var target byteSize
	c := &cobra.Command{
		Use: "optimize NAME | optimize --path FOLDER", Short: "Join a table's small files and drop its deleted rows for good",
		Long: "Join small files, and those with many deleted rows, into larger ones. No row changes.\nWith --cluster-by every file is written anew with its rows sorted, so that conditions on\nthose columns read fewer files. Readers and other writers need not stop.",
		Args: s.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := delta.OptimizeOptions{TargetBytes: int64(target), ClusterBy: cluster}
			var err error
			if where != "" {
				if o.Where, err = delta.ParsePredicate(where); err != nil {
					return err
				}
			}
			t, err := s.open(cmd.Context(), sh, optional(args))
			if err != nil {
				return err
			}
			o.Progress = func(n delta.OptimizeCounts) {
				if n.FilesRemoved < n.FilesPlanned {
					sh.note("%d of %d files", n.FilesRemoved, n.FilesPlanned)
				}
			}
			var n delta.OptimizeCounts
			err = sh.during("optimizing", func() (err error) {
				n, err = t.Optimize(cmd.Context(), o)
				return err
			})
			if err != nil {
				return err
			}
			return sh.show(struct {
				Version      int64 `json:"version"`
				FilesRemoved int   `json:"files_removed"`
				FilesAdded   int   `json:"files_added"`
				BytesRemoved int64 `json:"bytes_removed"`
				BytesAdded   int64 `json:"bytes_added"`
				Conflicts    int   `json:"conflicts"`
			}{n.Version, n.FilesRemoved, n.FilesMade, n.BytesRead, n.BytesWritten, n.Conflicts}, func() {
				if n.FilesRemoved == 0 {
					sh.say("Nothing to join at version %d.", n.Version)
				} else {
					sh.say("%d files became %d (%d bytes became %d), version %d.", n.FilesRemoved, n.FilesMade, n.BytesRead, n.BytesWritten, n.Version)
				}
				if n.Conflicts > 0 {
					sh.say("%d groups of files were left alone: other writers changed them meanwhile. Run it again for those.", n.Conflicts)
				}
			})
		},
	}
	s.register(c)
	c.Flags().StringVar(&where, "where", "", "only files that may hold rows of this condition")
	c.Flags().StringSliceVar(&cluster, "cluster-by", nil, "sort rows by these columns")
	c.Flags().Var(&target, "target-size", "size of a joined file (default: the table's delta.targetFileSize, else 256 MiB)")
	return c
}

func tableVacuum(sh *shell) *cobra.Command {
	var s source
	var retention string
	var o delta.VacuumOptions
	c := &cobra.Command{
		Use: "vacuum NAME | vacuum --path FOLDER", Short: "Delete files that no version of the last days needs",
		Long: "Delete the files in the table's folder that no version within the retention needs. Older\nversions cannot be read or restored afterwards.",
		Args: s.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if retention != "" {
				d, err := parseSpan(retention)
				if err != nil {
					return err
				}
				if o.Retention = d; d == 0 {
					o.Retention = time.Nanosecond // 0 stands for the table's own
				}
			}
			t, err := s.open(cmd.Context(), sh, optional(args))
			if err != nil {
				return err
			}
			var n delta.VacuumCounts
			err = sh.during("vacuuming", func() (err error) {
				n, err = t.Vacuum(cmd.Context(), o)
				return err
			})
			if err != nil {
				return err
			}
			return sh.show(struct {
				Files     int    `json:"files"`
				Bytes     int64  `json:"bytes"`
				Kept      int    `json:"kept"`
				Retention string `json:"retention"`
				DryRun    bool   `json:"dry_run"`
			}{n.Files, n.Bytes, n.Kept, n.Retention.String(), o.DryRun}, func() {
				word := "Deleted"
				if o.DryRun {
					word = "Would delete"
				}
				sh.say("%s %d files (%d bytes); %d are kept.", word, n.Files, n.Bytes, n.Kept)
			})
		},
	}
	s.register(c)
	c.Flags().StringVar(&retention, "retention", "", "how old what is deleted must be, e.g. 30d (default: the table's delta.deletedFileRetentionDuration, else 7d)")
	c.Flags().BoolVar(&o.Force, "force", false, "allow less than 7d: nobody else may read or write the table")
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would be deleted")
	return c
}

func tableRestore(sh *shell) *cobra.Command {
	var s source
	var m tableMoment
	c := &cobra.Command{
		Use: "restore NAME --version N | restore --path FOLDER --at TIME", Short: "Make a table again what it was at a version or time",
		Long: "Make a table again what it was, by a new version: rows, columns and properties. History\nstays, and the restore can itself be undone.",
		Args: s.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.version < 0 && m.at == "" {
				return usage(cmd, "say which: --version N or --at TIME")
			}
			ctx := cmd.Context()
			t, err := s.open(ctx, sh, optional(args))
			if err != nil {
				return err
			}
			snap, err := s.snapshotOf(ctx, t, m)
			if err != nil {
				return err
			}
			var v int64
			err = sh.during(fmt.Sprintf("restoring version %d", snap.Version()), func() (err error) {
				v, err = t.Restore(ctx, snap.Version())
				return err
			})
			if err != nil {
				return err
			}
			return sh.show(struct {
				Version  int64 `json:"version"`
				Restored int64 `json:"restored"`
			}{v, snap.Version()}, func() { sh.say("Version %d is version %d again.", v, snap.Version()) })
		},
	}
	s.register(c)
	s.registerVersion(c)
	m.register(c)
	return c
}
