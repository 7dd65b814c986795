package delta

import "slices"

// Split is a part of a snapshot's files, for one of several scans that run at
// once. The zero value stands for all files.
type Split struct {
	Files int
	Rows  int64 // by the statistics, deleted rows left out; files without statistics count 0
	Bytes int64 // of the data files

	files []*addAction
}

// Splits divides the files into at most n parts of about equal size; no part is
// empty, and a table without files has none. The same snapshot gives the same
// parts for the same n.
func (s *Snapshot) Splits(n int) []Split {
	files := s.sortedFiles()
	// The largest first, each to the part that has least.
	slices.SortStableFunc(files, func(a, b *addAction) int { return int(min(max(b.Size-a.Size, -1), 1)) })
	parts := make([]Split, min(max(n, 1), len(files)))
	for _, a := range files {
		least := &parts[0]
		for i := range parts {
			if parts[i].Bytes < least.Bytes || parts[i].Bytes == least.Bytes && parts[i].Files < least.Files {
				least = &parts[i]
			}
		}
		least.files = append(least.files, a)
		least.Files++
		least.Bytes += a.Size
		least.Rows += a.activeRows()
	}
	return parts
}

// activeRows is the number of rows by the statistics, less the deleted ones; 0
// when they do not tell.
func (a *addAction) activeRows() int64 {
	n, ok := a.statRows()
	if !ok {
		return 0
	}
	if a.DV != nil {
		n -= a.DV.Cardinality
	}
	return max(n, 0)
}
