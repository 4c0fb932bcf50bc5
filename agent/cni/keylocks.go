package cni

import "sync"

// keyLocks lets one request at a time change an attachment, while requests for
// others go on. The zero value is ready for use.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	sync.Mutex
	// users counts those that hold the lock and those that wait for it.
	users int
	// hurried counts those that wait for it by lockSoon. As long as there are any,
	// wanted is closed.
	hurried int
	wanted  chan struct{}
}

// lock waits for the lock of an attachment and returns what gives it back.
func (l *keyLocks) lock(hostLink string) (unlock func()) {
	l.mu.Lock()
	k := l.use(hostLink)
	l.mu.Unlock()
	k.Lock()
	return func() { l.give(hostLink, k) }
}

// lockSoon is like lock, and tells whoever holds the lock that it is wanted.
func (l *keyLocks) lockSoon(hostLink string) (unlock func()) {
	l.mu.Lock()
	k := l.use(hostLink)
	k.hurried++
	if k.hurried == 1 {
		close(k.wanted)
	}
	l.mu.Unlock()
	k.Lock()
	l.mu.Lock()
	defer l.mu.Unlock()
	k.hurried--
	if k.hurried == 0 {
		k.wanted = make(chan struct{})
	}
	return func() { l.give(hostLink, k) }
}

// wanted returns a channel that is closed when somebody wants a lock soon that the
// caller holds.
func (l *keyLocks) wanted(hostLink string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[hostLink].wanted
}

// tryLock is like lock where nobody has the lock or waits for it, and returns
// false elsewhere.
func (l *keyLocks) tryLock(hostLink string) (unlock func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[hostLink] != nil {
		return nil, false
	}
	k := l.use(hostLink)
	k.Lock()
	return func() { l.give(hostLink, k) }, true
}

func (l *keyLocks) use(hostLink string) *keyLock {
	if l.held == nil {
		l.held = map[string]*keyLock{}
	}
	k := l.held[hostLink]
	if k == nil {
		k = &keyLock{wanted: make(chan struct{})}
		l.held[hostLink] = k
	}
	k.users++
	return k
}

func (l *keyLocks) give(hostLink string, k *keyLock) {
	k.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	k.users--
	if k.users == 0 {
		delete(l.held, hostLink)
	}
}
