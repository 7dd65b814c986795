package feed

// MakeBareSlots makes slots as Postgres does, without a pilot.
func (k *Keeper) MakeBareSlots() { k.bare = true }
