package cache

// Rest waits until what was fetched is kept: readers have it before.
func (c *Cache) Rest() { c.joined.Wait() }
