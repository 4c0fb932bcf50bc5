package nft

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/podnet/podnet/internal/nft"
)

// families are those of podnet's tables.
var families = []nft.Family{nft.Inet, nft.Bridge, nft.ARP}

// List reads the tables of a name, those that exist. Of rules it returns the fingerprints alone.
func (*Conn) List(ctx context.Context, name string) ([]nft.Table, error) {
	var tables []nft.Table
	for _, family := range families {
		objects, err := list(ctx, "table", string(family), name)
		if errors.Is(err, errNoTable) {
			continue
		}
		if err != nil {
			return nil, err
		}
		table, err := tableOf(family, name, objects)
		if err != nil {
			return nil, fmt.Errorf("read nft table %s %s: %w", family, name, err)
		}
		tables = append(tables, table)
	}
	return tables, nil
}

// Noted returns the keys of the elements that rules have added to a set; none where there
// is no such set.
func (*Conn) Noted(ctx context.Context, family nft.Family, table, set string) ([][]string, error) {
	objects, err := list(ctx, "set", string(family), table, set)
	if errors.Is(err, errNoTable) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var keys [][]string
	for _, o := range objects {
		if o.Set == nil {
			continue
		}
		found, err := setOf(o.Set, false)
		if err != nil {
			return nil, err
		}
		for _, e := range found.Elements {
			keys = append(keys, e.Key)
		}
	}
	return keys, nil
}

// object is one object of a listing (libnftables-json(5)): one of its fields is set.
type object struct {
	Chain *listedChain `json:"chain"`
	Rule  *listedRule  `json:"rule"`
	Set   *listedSet   `json:"set"`
	Map   *listedSet   `json:"map"`
}

type listedChain struct {
	Name string        `json:"name"`
	Type nft.ChainType `json:"type"`
	Hook nft.Hook      `json:"hook"`
	Prio int           `json:"prio"`
}

func (c *listedChain) base() nft.Base {
	return nft.Base{Type: c.Type, Hook: c.Hook, Priority: nft.Priority{Offset: c.Prio}}
}

type listedRule struct {
	Chain   string `json:"chain"`
	Comment string `json:"comment"`
}

type listedSet struct {
	Name  string     `json:"name"`
	Type  listedType `json:"type"`
	Map   listedType `json:"map"`
	Flags []string   `json:"flags"`
	// Timeout is in seconds.
	Timeout int               `json:"timeout"`
	Elem    []json.RawMessage `json:"elem"`
}

// listedType is a type, which the listing writes as a string or, concatenated, as a list.
type listedType string

// UnmarshalJSON reads both forms.
func (t *listedType) UnmarshalJSON(text []byte) error {
	var parts []string
	if err := json.Unmarshal(text, &parts); err == nil {
		*t = listedType(strings.Join(parts, " . "))
		return nil
	}
	return json.Unmarshal(text, (*string)(t))
}

var errNoTable = errors.New("no such nft table")

// list runs nft to list objects. knftables lists the elements of one set at a
// time and no tables of others; this is the whole of it in one run.
func list(ctx context.Context, what ...string) ([]object, error) {
	cmd := exec.CommandContext(ctx, "nft", append([]string{"--json", "list"}, what...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if strings.Contains(stderr.String(), "No such file or directory") {
			return nil, errNoTable
		}
		return nil, fmt.Errorf("nft list %s: %w: %s", strings.Join(what, " "), err, strings.TrimSpace(stderr.String()))
	}
	var listing struct {
		Objects []object `json:"nftables"`
	}
	if err := json.Unmarshal(out, &listing); err != nil {
		return nil, fmt.Errorf("nft list %s: %w", strings.Join(what, " "), err)
	}
	return listing.Objects, nil
}

// tableOf makes a table of its listing.
func tableOf(family nft.Family, name string, objects []object) (nft.Table, error) {
	table := nft.Table{Family: family, Name: name}
	chains := map[string]int{}
	for _, o := range objects {
		switch {
		case o.Chain != nil:
			chains[o.Chain.Name] = len(table.Chains)
			table.Chains = append(table.Chains, nft.Chain{
				Name: o.Chain.Name, Base: o.Chain.base(),
			})
		case o.Rule != nil:
			i, ok := chains[o.Rule.Chain]
			if !ok {
				return nft.Table{}, fmt.Errorf("rule of unknown chain %s", o.Rule.Chain)
			}
			table.Chains[i].Rules = append(table.Chains[i].Rules, nft.Rule{Fingerprint: o.Rule.Comment})
		case o.Set != nil:
			set, err := setOf(o.Set, false)
			if err != nil {
				return nft.Table{}, err
			}
			if set.Forgets > 0 {
				// What rules have added is not podnet's.
				set.Elements = nil
			}
			table.Sets = append(table.Sets, set)
		case o.Map != nil:
			set, err := setOf(o.Map, true)
			if err != nil {
				return nft.Table{}, err
			}
			table.Sets = append(table.Sets, set)
		}
	}
	return table, nil
}

func setOf(s *listedSet, isMap bool) (nft.Set, error) {
	set := nft.Set{Name: s.Name, Key: string(s.Type), Value: string(s.Map)}
	for _, f := range s.Flags {
		set.Interval = set.Interval || f == "interval"
	}
	set.Forgets = time.Duration(s.Timeout) * time.Second
	for _, raw := range s.Elem {
		e, err := elementOf(raw, isMap)
		if err != nil {
			return nft.Set{}, fmt.Errorf("element of %s: %w", s.Name, err)
		}
		set.Elements = append(set.Elements, e)
	}
	return set, nil
}

func elementOf(raw json.RawMessage, isMap bool) (nft.Element, error) {
	if !isMap {
		key, err := parts(raw)
		return nft.Element{Key: key}, err
	}
	var pair [2]json.RawMessage
	if err := json.Unmarshal(raw, &pair); err != nil {
		return nft.Element{}, err
	}
	key, err := parts(pair[0])
	if err != nil {
		return nft.Element{}, err
	}
	value, err := parts(pair[1])
	return nft.Element{Key: key, Value: value}, err
}

// expression is a value that is more than a word or a number.
type expression struct {
	// Elem wraps a value that has more to it, such as a counter.
	Elem *struct {
		Val json.RawMessage `json:"val"`
	} `json:"elem"`
	Concat []json.RawMessage `json:"concat"`
	Prefix *struct {
		Addr string `json:"addr"`
		Len  int    `json:"len"`
	} `json:"prefix"`
	Range *[2]json.RawMessage `json:"range"`
}

// parts returns the parts of a key or value, as nft takes them.
func parts(raw json.RawMessage) ([]string, error) {
	var word string
	if err := json.Unmarshal(raw, &word); err == nil {
		return []string{word}, nil
	}
	var number json.Number
	if err := json.Unmarshal(raw, &number); err == nil {
		return []string{number.String()}, nil
	}
	var e expression
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, err
	}
	switch {
	case e.Elem != nil:
		return parts(e.Elem.Val)
	case e.Prefix != nil:
		return []string{fmt.Sprintf("%s/%d", e.Prefix.Addr, e.Prefix.Len)}, nil
	case e.Range != nil:
		first, err := parts(e.Range[0])
		if err != nil {
			return nil, err
		}
		last, err := parts(e.Range[1])
		if err != nil {
			return nil, err
		}
		return []string{strings.Join(first, "") + "-" + strings.Join(last, "")}, nil
	case e.Concat != nil:
		var all []string
		for _, c := range e.Concat {
			part, err := parts(c)
			if err != nil {
				return nil, err
			}
			all = append(all, part...)
		}
		return all, nil
	}
	return verdict(raw)
}

// verdict reads a verdict: {"drop": null} or {"jump": {"target": "chain"}}.
func verdict(raw json.RawMessage) ([]string, error) {
	var v map[string]*struct {
		Target string `json:"target"`
	}
	if err := json.Unmarshal(raw, &v); err != nil || len(v) != 1 {
		return nil, fmt.Errorf("cannot read %s", raw)
	}
	for name, to := range v {
		if to != nil {
			return []string{name + " " + to.Target}, nil
		}
		return []string{name}, nil
	}
	return nil, nil
}
