package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/podnet/podnet/internal/model"
)

// tableFamilies are the families of podnet's tables.
var tableFamilies = []string{"inet", "bridge", "arp"}

// observeFirewall reads podnet's tables, those that exist.
func observeFirewall(ctx context.Context) ([]model.Table, error) {
	var tables []model.Table
	for _, family := range tableFamilies {
		objects, err := listNFT(ctx, "table", family, model.FirewallTable)
		if errors.Is(err, errNoTable) {
			continue
		}
		if err != nil {
			return nil, err
		}
		table, err := tableOf(family, objects)
		if err != nil {
			return nil, fmt.Errorf("read nft table %s %s: %w", family, model.FirewallTable, err)
		}
		tables = append(tables, table)
	}
	return tables, nil
}

// nftObject is one object of a listing (libnftables-json(5)): one of its fields is set.
type nftObject struct {
	Chain *nftChain `json:"chain"`
	Rule  *nftRule  `json:"rule"`
	Set   *nftSet   `json:"set"`
	Map   *nftSet   `json:"map"`
}

type nftChain struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	Type   string `json:"type"`
	Hook   string `json:"hook"`
	Prio   int    `json:"prio"`
	Policy string `json:"policy"`
}

type nftRule struct {
	Chain   string `json:"chain"`
	Comment string `json:"comment"`
}

type nftSet struct {
	Name  string   `json:"name"`
	Type  nftType  `json:"type"`
	Map   nftType  `json:"map"`
	Flags []string `json:"flags"`
	// Timeout is in seconds.
	Timeout int               `json:"timeout"`
	Elem    []json.RawMessage `json:"elem"`
}

// nftType is a type, which the listing writes as a string or, concatenated, as a list.
type nftType string

// UnmarshalJSON reads both forms.
func (t *nftType) UnmarshalJSON(text []byte) error {
	var parts []string
	if err := json.Unmarshal(text, &parts); err == nil {
		*t = nftType(strings.Join(parts, " . "))
		return nil
	}
	return json.Unmarshal(text, (*string)(t))
}

var errNoTable = errors.New("no such nft table")

// listNFT runs nft to list objects. knftables lists the elements of one set at a
// time and no tables of others; this is the whole of it in one run.
func listNFT(ctx context.Context, what ...string) ([]nftObject, error) {
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
		Objects []nftObject `json:"nftables"`
	}
	if err := json.Unmarshal(out, &listing); err != nil {
		return nil, fmt.Errorf("nft list %s: %w", strings.Join(what, " "), err)
	}
	return listing.Objects, nil
}

// tableOf makes a table of its listing.
func tableOf(family string, objects []nftObject) (model.Table, error) {
	table := model.Table{Family: family, Name: model.FirewallTable}
	chains := map[string]int{}
	for _, o := range objects {
		switch {
		case o.Chain != nil:
			chains[o.Chain.Name] = len(table.Chains)
			table.Chains = append(table.Chains, model.Chain{
				Name: o.Chain.Name, Type: o.Chain.Type, Hook: o.Chain.Hook, Priority: strconv.Itoa(o.Chain.Prio),
			})
		case o.Rule != nil:
			i, ok := chains[o.Rule.Chain]
			if !ok {
				return model.Table{}, fmt.Errorf("rule of unknown chain %s", o.Rule.Chain)
			}
			table.Chains[i].Rules = append(table.Chains[i].Rules, model.FirewallRule{Fingerprint: o.Rule.Comment})
		case o.Set != nil:
			set, err := setOf(o.Set, false)
			if err != nil {
				return model.Table{}, err
			}
			if set.Forgets > 0 {
				// What rules have added is not podnet's.
				set.Elements = nil
			}
			table.Sets = append(table.Sets, set)
		case o.Map != nil:
			set, err := setOf(o.Map, true)
			if err != nil {
				return model.Table{}, err
			}
			table.Sets = append(table.Sets, set)
		}
	}
	return table, nil
}

func setOf(s *nftSet, isMap bool) (model.Set, error) {
	set := model.Set{Name: s.Name, Key: string(s.Type), Value: string(s.Map)}
	for _, f := range s.Flags {
		set.Interval = set.Interval || f == "interval"
	}
	set.Forgets = time.Duration(s.Timeout) * time.Second
	for _, raw := range s.Elem {
		e, err := elementOf(raw, isMap)
		if err != nil {
			return model.Set{}, fmt.Errorf("element of %s: %w", s.Name, err)
		}
		set.Elements = append(set.Elements, e)
	}
	return set, nil
}

func elementOf(raw json.RawMessage, isMap bool) (model.Element, error) {
	if !isMap {
		key, err := parts(raw)
		return model.Element{Key: key}, err
	}
	var pair [2]json.RawMessage
	if err := json.Unmarshal(raw, &pair); err != nil {
		return model.Element{}, err
	}
	key, err := parts(pair[0])
	if err != nil {
		return model.Element{}, err
	}
	value, err := parts(pair[1])
	return model.Element{Key: key, Value: value}, err
}

// nftExpression is a value that is more than a word or a number.
type nftExpression struct {
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
	var e nftExpression
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
