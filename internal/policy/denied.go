package policy

import "github.com/podnet/podnet/internal/model"

// DeniedCounter is the name of the counter of the packets that were denied.
const DeniedCounter = "denied"

// toDenied is the verdict on what is denied: it leads to the one chain in which that ends.
const (
	deniedChain = "denied"
	toDenied    = "goto " + deniedChain
)

// denied is where packets end that policies do not allow.
func denied() model.Chain {
	return chain(deniedChain, `counter name "`+DeniedCounter+`" drop`)
}
