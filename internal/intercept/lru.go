package intercept

import (
	"container/list"
	"sync"
	"time"
)

// lru is a map of bounded size whose entries expire; the least recently used one goes first. It is safe for use by many
// goroutines, and has none of its own.
type lru[K comparable, V any] struct {
	max int
	now func() time.Time

	mu    sync.Mutex
	order *list.List // of *lruEntry, the most recently used one in front
	items map[K]*list.Element
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
	until time.Time
}

// newLRU returns a cache of at most size entries; now is the clock.
func newLRU[K comparable, V any](size int, now func() time.Time) *lru[K, V] {
	return &lru[K, V]{max: size, now: now, order: list.New(), items: map[K]*list.Element{}}
}

// get returns the value of key, if it is there and has not expired.
func (c *lru[K, V]) get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.items[key]
	if ok {
		e := el.Value.(*lruEntry[K, V])
		if c.now().Before(e.until) {
			c.order.MoveToFront(el)
			return e.value, true
		}
		c.remove(el)
	}
	var zero V
	return zero, false
}

// put sets the value of key until the moment given, and makes room for it where needed.
func (c *lru[K, V]) put(key K, value V, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.items[key]; ok {
		c.remove(el)
	}
	for len(c.items) >= c.max {
		c.remove(c.order.Back())
	}
	c.items[key] = c.order.PushFront(&lruEntry[K, V]{key, value, until})
}

// drop removes key and says whether it was there.
func (c *lru[K, V]) drop(key K) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.items[key]
	if ok {
		c.remove(el)
	}
	return ok
}

// values returns what has not expired, in no order.
func (c *lru[K, V]) values() []V {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]V, 0, len(c.items))
	for _, el := range c.items {
		if e := el.Value.(*lruEntry[K, V]); c.now().Before(e.until) {
			out = append(out, e.value)
		}
	}
	return out
}

// size returns the number of entries, expired ones included that nobody asked for.
func (c *lru[K, V]) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.items)
}

func (c *lru[K, V]) remove(el *list.Element) {
	delete(c.items, el.Value.(*lruEntry[K, V]).key)
	c.order.Remove(el)
}
