package controllers

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	podnetv1alpha1 "github.com/podnet/podnet/api/v1alpha1"
)

const (
	// historySeeds and historySteps are how many histories are tried and how long
	// each is, unless the environment says otherwise: PODNET_HISTORY_SEEDS (a
	// number, or from-to) and PODNET_HISTORY_STEPS.
	historySeeds = 6
	historySteps = 200
	// shownLines is how much of a history is shown when a property fails.
	shownLines = 200
	// shrinking bounds the search for a shorter history.
	shrinking = 30 * time.Second
)

// TestAnyHistoryKeepsAddressesApartAndEndsInOneState plays random histories of a
// cluster and tries the properties above, after each step and at the end. What
// podnet promises, and what is tried, is this:
//
//   - No two pods have one address, from the moment when an ADD has returned. The
//     pods of a machine whose Node was deleted count until the quarantine is over,
//     counted from that deletion: then nobody answers for them any more.
//   - The block of such a pod is its node's. Where somebody took the object by
//     force, nobody else gets the block, provided that the agent could answer the
//     roll call from then on: it runs, reaches the API, its node is Ready, and it
//     answered one before.
//   - No two machines that run have one name.
//   - What an agent that lies says takes nothing from others, and gives its node no
//     more blocks than a node may hold.
//   - Watches are late by a bounded time that is shorter than the quarantine.
func TestAnyHistoryKeepsAddressesApartAndEndsInOneState(t *testing.T) {
	t.Attr("budget", "30s")
	first, last := seedsOf(t)
	length := historySteps
	if s := os.Getenv("PODNET_HISTORY_STEPS"); s != "" {
		var err error
		if length, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	dir := memoryDir(t)
	for seed := first; seed <= last; seed++ {
		steps := make([]int, length)
		for i := range steps {
			steps[i] = i
		}
		w, broke := play(t, dir, seed, steps)
		if broke == nil {
			t.Logf("seed %d: %d changes of objects, %d of them of NodeSubnets, %d managers, %d machines",
				seed, w.api.revision(), len(w.api.log[subnetKind]), w.managerCount, len(w.machines))
			continue
		}
		t.Logf("seed %d breaks: %s: %s", seed, broke.property, broke.what)
		if os.Getenv("PODNET_HISTORY_SHRINK") != "0" {
			steps, w, broke = shrunk(t, dir, seed, steps, w, broke)
		}
		lines := w.lines[max(0, len(w.lines)-shownLines):]
		t.Errorf("seed %d, %d steps; the end of the history:\n%s\n%s: %s",
			seed, len(steps), strings.Join(lines, "\n"), broke.property, broke.what)
		return
	}
}

func seedsOf(t *testing.T) (first, last uint64) {
	t.Helper()
	s := os.Getenv("PODNET_HISTORY_SEEDS")
	if s == "" {
		return 1, historySeeds
	}
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		from, to = "1", s
	}
	first, err := strconv.ParseUint(from, 10, 64)
	if err == nil {
		last, err = strconv.ParseUint(to, 10, 64)
	}
	if err != nil {
		t.Fatal(err)
	}
	return first, last
}

// memoryDir is a folder in memory where there is one: books sync what they write.
func memoryDir(t *testing.T) string {
	t.Helper()
	if info, err := os.Stat("/dev/shm"); err == nil && info.Mode()&fs.ModeDir != 0 {
		if dir, err := os.MkdirTemp("/dev/shm", "podnet-history-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

// play plays some steps of a history, each by a random source of its own, so that
// leaving one out changes the others little.
func play(t *testing.T, dir string, seed uint64, steps []int) (w *world, broke *broken) {
	t.Helper()
	sub, err := os.MkdirTemp(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(sub)
	w = newWorld(sub)
	defer func() {
		if caught := recover(); caught != nil {
			b, ok := caught.(broken)
			if !ok {
				t.Logf("seed %d: the end of the history:\n%s", seed, strings.Join(w.lines[max(0, len(w.lines)-shownLines):], "\n"))
				panic(caught)
			}
			broke = &b
		}
	}()
	// What people made is not in a cluster that has no history.
	w.byHand = seed%2 == 0
	r := rand.New(rand.NewPCG(seed, 0))
	w.makeNetwork([]podnetv1alpha1.Range{rangeOf(rangesOf[0][0], ""), rangeOf(rangesOf[1][0], "")}, randomLimits(r))
	w.startManager(r)
	for range 1 + r.IntN(3) {
		w.stepNode(r)
	}
	for _, i := range steps {
		w.rand = rand.New(rand.NewPCG(seed, uint64(i)+1))
		w.step(w.rand)
	}
	w.note("it ends")
	w.settle()
	w.checkFinal()
	w.compare(rand.New(rand.NewPCG(seed, 1<<32)))
	return w, nil
}

// shrunk looks for a shorter history that breaks the same property.
func shrunk(t *testing.T, dir string, seed uint64, steps []int, w *world, broke *broken) ([]int, *world, *broken) {
	t.Helper()
	end := time.Now().Add(shrinking)
	for size := max(len(steps)/2, 1); time.Now().Before(end); size = max(size/2, 1) {
		shorter := false
		for from := len(steps) - size; from > -size && time.Now().Before(end); from -= size {
			fewer := slices.Delete(slices.Clone(steps), max(from, 0), from+size)
			if is, also := play(t, dir, seed, fewer); also != nil && also.property == broke.property {
				steps, w, broke, shorter = fewer, is, also, true
			}
		}
		if size == 1 && !shorter {
			break
		}
	}
	return steps, w, broke
}

// settle lets everything go its way, without faults, until nothing changes for
// longer than anything waits.
func (w *world) settle() {
	w.calm = true
	for _, m := range w.nodes() {
		if m.lies {
			w.leave(m) // People find out.
			m.turnOff()
		}
	}
	for _, m := range w.running() {
		m.online = m.orphaned.IsZero()
		switch {
		case !m.online:
			m.turnOff()
		case !m.up:
			m.startAgent()
		}
	}
	managers := w.alive()
	if len(managers) == 0 {
		managers = append(managers, w.startManager(w.rand))
	}
	for _, m := range managers[1:] {
		m.dead = true
	}
	const rounds, quiet = 150, 10
	for round, same := 0, 0; same < quiet; round++ {
		before := w.api.revision()
		w.round(managers[0])
		if round >= rounds {
			w.fail(settles, "it goes on after %d rounds", rounds)
		}
		same++
		if w.api.revision() != before {
			same = 0
		}
	}
}

// round lets everybody do all they can, and time go on.
func (w *world) round(manager *simManager) {
	for range 6 {
		before := w.api.revision()
		for _, m := range w.nodes() {
			m.cache.latest()
			m.pass(w.rand)
			for _, p := range slices.Clone(m.pods) {
				for range 3 {
					if p.state != podLive {
						m.add(p)
					}
				}
			}
			m.pass(w.rand)
			m.write()
		}
		manager.latest()
		for i := range maxNodes {
			manager.reconcile(nodeController, fmt.Sprintf("n%d", i)) // Of those that are gone too.
		}
		for _, s := range w.api.subnets() {
			manager.reconcile(subnetController, s.Name)
		}
		manager.reconcile(networkController, podnetv1alpha1.DefaultPodNetwork)
		w.collect()
		w.check()
		if w.api.revision() == before {
			break
		}
	}
	w.clock.Step(31 * time.Second)
}

// compare brings the cluster to an end that a cluster without a history can be
// brought to, and compares the two.
func (w *world) compare(r *rand.Rand) {
	if w.byHand {
		return
	}
	for _, m := range w.nodes() {
		for _, p := range slices.Clone(m.pods) {
			m.remove(p)
		}
	}
	const ample4, ample6 = "10.9.0.0/23", "fd00:0:0:9::/119"
	w.changeNetwork(func(spec *podnetv1alpha1.PodNetworkSpec) {
		spec.Ranges = append(spec.Ranges, rangeOf(ample4, ""), rangeOf(ample6, ""))
		spec.NodeBlocks = podnetv1alpha1.NodeBlocks{Max: 2, Reserve: ptr.To(int32(2)), IdleSeconds: idleSeconds}
	})
	w.note("all pods go, and there is enough of everything")
	w.settle()
	w.checkFinal()

	other := newWorld(w.dir + "-other")
	defer os.RemoveAll(other.dir)
	other.calm = true
	spec := w.api.network().Spec
	other.makeNetwork(spec.Ranges, spec.NodeBlocks)
	nodes := w.nodes()
	r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	for _, m := range nodes {
		other.join(other.newMachine(m.name, m.labels, m.families))
	}
	other.settle()
	for _, m := range nodes {
		n := r.IntN(mostPods)
		for range n {
			m.ask()
			other.machineOf(m.name).ask()
		}
	}
	w.settle()
	other.settle()
	w.checkFinal()
	other.checkFinal()
	if got, want := w.summary(), other.summary(); got != want {
		w.fail(oneState, "after this history:\n%swithout it:\n%s", got, want)
	}
}
