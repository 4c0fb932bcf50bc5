package state

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/utils/clock"

	"github.com/podnet/podnet/agent/loop"
	"github.com/podnet/podnet/internal/model"
)

// Objects are what the API asks for. They do not change.
type Objects struct {
	// Network is nil as long as there is no PodNetwork named default.
	Network *model.Network
	// Blocks are those of all nodes, and those that vanished and are still served.
	Blocks []model.Block
	// Former are the endpoints that nodes had until lately.
	Former     []model.FormerEndpoint
	RouteModes []model.RouteMode
	// RollCall is the manager's last request to report the blocks in use; empty where there was none.
	RollCall string
	// Uninstall says that podnet shall be taken off every node.
	Uninstall bool
	// RangeSummary says, for people, how many blocks each range has and has free.
	RangeSummary string
	// Problems are the objects that could not be read, a sentence each.
	Problems []model.Problem
}

// Policies are what network policy goes by.
type Policies struct {
	Objects model.PolicyObjects
	// Blocks are those of all nodes.
	Blocks []model.Block
	// Uninstall says that podnet shall be taken off every node.
	Uninstall bool
	// Denied says how denied packets are reported.
	Denied model.DeniedPackets
	// Problems are what could not be read, a sentence each.
	Problems []model.Problem
}

// Source reads what the API holds at one moment, and knows nothing of what it held before.
type Source interface {
	// Objects leaves out what was there until lately.
	Objects(ctx context.Context) (Objects, error)
	// Policies leaves out what is in Objects.
	Policies(ctx context.Context) (Policies, error)
}

// Keeper keeps what the API asks for, and remembers what it held until lately: whenever it
// has changed it is read once, and published for all. Its methods may be called concurrently.
type Keeper struct {
	// Loop reads.
	*loop.Loop
	cfg     KeeperConfig
	current atomic.Pointer[kept]
	built   chan struct{}
	// What follows is the loop's alone.

	lost   *lost
	former *former
}

type kept struct {
	Objects
	at time.Time
}

// KeeperConfig is what a Keeper works with.
type KeeperConfig struct {
	Source Source
	Clock  clock.PassiveClock
	// Changed is called after what the API asks for has changed. It must not block.
	Changed func()
	// FullInterval is the time after which it is read again though nothing has changed: what
	// is remembered gets old.
	FullInterval time.Duration
}

// Times of the loop: what comes first is read at once, and bursts are bounded.
const (
	pauseFactor = 2
	mostPause   = 100 * time.Millisecond
	firstRetry  = 200 * time.Millisecond
)

// NewKeeper returns a Keeper that knows nothing before Run or Build.
func NewKeeper(cfg KeeperConfig) *Keeper {
	k := &Keeper{cfg: cfg, built: make(chan struct{}), lost: newLost(cfg.Clock), former: newFormer(cfg.Clock)}
	k.Loop = loop.New(loop.Config{
		Pass: k.Build, Failure: "cannot read the objects, trying again",
		PauseFactor: pauseFactor, MostPause: mostPause, FirstRetry: firstRetry, FullInterval: cfg.FullInterval,
	})
	return k
}

// Build reads the objects, and publishes them. It is for one caller at a time.
func (k *Keeper) Build(ctx context.Context) error {
	is, err := k.cfg.Source.Objects(ctx)
	if err != nil {
		return err
	}
	// A cache lists its objects in any order.
	slices.SortFunc(is.Blocks, func(a, b model.Block) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(is.RouteModes, func(a, b model.RouteMode) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(is.Problems, func(a, b model.Problem) int { return strings.Compare(a.Message, b.Message) })
	is.Blocks = append(is.Blocks, k.lost.blocks(is.Blocks)...)
	is.Former = k.former.endpoints(is.Blocks)
	was := k.current.Swap(&kept{Objects: is, at: k.cfg.Clock.Now()})
	if was == nil {
		close(k.built)
	}
	if was == nil || !same(was.Objects, is) {
		k.cfg.Changed()
	}
	return nil
}

// same reports whether two Objects differ in nothing but in how old things are.
func same(a, b Objects) bool {
	a.Former, b.Former = aged(a.Former, freshGrace), aged(b.Former, freshGrace)
	return reflect.DeepEqual(a, b)
}

// aged returns former endpoints some time later.
func aged(former []model.FormerEndpoint, by time.Duration) []model.FormerEndpoint {
	former = slices.Clone(former)
	for i := range former {
		former[i].Fresh = max(former[i].Fresh-by, 0)
	}
	return former
}

// Built is closed when there are Objects.
func (k *Keeper) Built() <-chan struct{} { return k.built }

// errUnheard is why nothing can be said of the objects.
var errUnheard = errors.New("the agent has not heard all from the API server yet")

// Objects returns what the API asks for. It fails before that is known, and does not wait.
func (k *Keeper) Objects() (Objects, error) {
	is := k.current.Load()
	if is == nil {
		return Objects{}, errUnheard
	}
	out := is.Objects
	out.Former = aged(out.Former, k.cfg.Clock.Since(is.at))
	return out, nil
}

// Policies returns what network policy goes by.
func (k *Keeper) Policies(ctx context.Context) (Policies, error) {
	objects, err := k.Objects()
	if err != nil {
		return Policies{}, err
	}
	out, err := k.cfg.Source.Policies(ctx)
	if err != nil {
		return Policies{}, err
	}
	out.Blocks, out.Uninstall = objects.Blocks, objects.Uninstall
	if objects.Network != nil {
		out.Objects.Ranges, out.Denied = objects.Network.Ranges, objects.Network.Denied
	}
	return out, nil
}
