// Command bench makes tables of what `go test -bench` prints: one for each
// benchmark, with its variants side by side. What it reads goes on to standard
// error as it comes, and the tables to standard output at the end.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

func main() {
	if err := run(os.Stdin, os.Stderr, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, progress, out io.Writer) error {
	tables, err := read(in, progress)
	if err != nil {
		return fmt.Errorf("reading the benchmarks: %w", err)
	}
	for _, t := range tables {
		if _, err := io.WriteString(out, t.markdown()); err != nil {
			return fmt.Errorf("printing the tables: %w", err)
		}
	}
	return nil
}

// table is the outcome of one benchmark.
type table struct {
	title string
	// variants are the columns, and units the rows, each in the order of its coming.
	variants, units []string
	// values by variant and unit.
	values map[[2]string]float64
}

// processors is the number of them that Go writes behind each name.
var processors = regexp.MustCompile(`-\d+$`)

func read(in io.Reader, progress io.Writer) ([]*table, error) {
	var tables []*table
	var folder string
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		if _, err := fmt.Fprintln(progress, line); err != nil {
			return nil, err
		}
		if path, found := strings.CutPrefix(line, "pkg: "); found {
			folder = strings.TrimPrefix(path, "github.com/podnet/podnet/")
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 4 || len(fields)%2 != 0 || !strings.HasPrefix(line, "Benchmark") {
			continue
		}
		name, variant, _ := strings.Cut(processors.ReplaceAllString(fields[0], ""), "/")
		title := strings.TrimPrefix(name, "Benchmark") + " (" + folder + ")"
		if len(tables) == 0 || tables[len(tables)-1].title != title {
			tables = append(tables, &table{title: title, values: map[[2]string]float64{}})
		}
		if err := tables[len(tables)-1].add(variant, fields[2:]); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
	}
	return tables, lines.Err()
}

// add enters a variant: its values, each followed by its unit.
func (t *table) add(variant string, fields []string) error {
	t.variants = append(t.variants, variant)
	for pair := range slices.Chunk(fields, 2) {
		value, err := strconv.ParseFloat(pair[0], 64)
		if err != nil {
			return err
		}
		if !slices.Contains(t.units, pair[1]) {
			t.units = append(t.units, pair[1])
		}
		t.values[[2]string{variant, pair[1]}] = value
	}
	return nil
}

// markdown is the table as text that is also Markdown.
func (t *table) markdown() string {
	rows := [][]string{append([]string{t.title}, t.variants...)}
	for _, unit := range t.units {
		row := []string{unit}
		for _, variant := range t.variants {
			cell := ""
			if value, measured := t.values[[2]string{variant, unit}]; measured {
				cell = short(value)
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], 3, utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	out.WriteByte('\n')
	for i, row := range rows {
		for j, cell := range row {
			if j == 0 {
				fmt.Fprintf(&out, "| %-*s |", widths[j], cell)
			} else {
				fmt.Fprintf(&out, " %*s |", widths[j], cell)
			}
		}
		out.WriteByte('\n')
		if i == 0 {
			for j, width := range widths {
				if j == 0 {
					out.WriteString("|" + strings.Repeat("-", width+2) + "|")
				} else {
					out.WriteString(strings.Repeat("-", width+1) + ":|")
				}
			}
			out.WriteByte('\n')
		}
	}
	return out.String()
}

// short writes a number with three digits that count, or all before the point.
func short(value float64) string {
	switch {
	case value >= 100 || value == float64(int64(value)):
		return strconv.FormatFloat(value, 'f', 0, 64)
	case value >= 10:
		return strconv.FormatFloat(value, 'f', 1, 64)
	default:
		return strconv.FormatFloat(value, 'g', 3, 64)
	}
}
