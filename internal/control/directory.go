package control

// Directory tells running computes which principals there are.
type Directory struct{ told *signals }

// changed has the directory be told anew.
func (d *Directory) changed() {}
