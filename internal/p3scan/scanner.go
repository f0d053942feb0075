package p3scan

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// scannerTable is how the array of tables [[scanner]] is named to a file.
const scannerTable = "[scanner]"

// scanner converts what belongs to the scanner.
func (c *converter) scanner() {
	typ, given := c.take("scannertype")
	if !given {
		typ.Value = "basic"
	}
	s, hasScanner := c.take("scanner")
	switch typ.Value {
	case "clamd":
		c.clamd(s, hasScanner)
	case "basic", "bash":
		if !hasScanner {
			c.say(typ, Mapped, "scanner", "no scanner is named: a clamd that is found on the machine is used")
			c.scannerless("without a scanner")
			return
		}
		if !c.command(s, typ.Value == "bash") {
			c.say(typ, Refused, "", "see scanner")
			c.scannerless("without that scanner")
			return
		}
	default:
		c.say(typ, Refused, "", fmt.Sprintf("there is no scanner of type %.40q any more: use clamd, or a program (type = \"command\"); as it stands a clamd "+
			"that is found on the machine is used", typ.Value))
		c.say(s, Refused, "", "see scannertype")
		c.scannerless("without that scanner")
		return
	}
	c.say(typ, Mapped, "scanner.type", "")
}

// scannerless says of what belongs to a scanner that it has no meaning.
func (c *converter) scannerless(why string) {
	for _, key := range []string{"viruscode", "goodcode", "virusregexp"} {
		if s, ok := c.take(key); ok {
			c.say(s, Refused, "", why+" it has no meaning")
		}
	}
}

func (c *converter) clamd(s Setting, given bool) {
	at := "tcp:127.0.0.1:3310"
	if given {
		host, port, err := net.SplitHostPort(s.Value)
		switch {
		case strings.HasPrefix(s.Value, "/") && !strings.Contains(s.Value, ","):
			at = "unix:" + s.Value
		case err == nil && isHost(host) && isPort(port):
			at = "tcp:" + s.Value
		default:
			c.say(s, Refused, "scanner.address", fmt.Sprintf("%q is neither host:port nor the path of a socket; P3Scan's default is used", s.Value))
			given = false
		}
	}
	c.file.set(scannerTable+".type", quoted("clamd"))
	c.file.set(scannerTable+".address", quoted(at))
	if given {
		c.say(s, Mapped, "scanner.address", "today's protocol is spoken: P3Scan's STREAM is gone since ClamAV 0.104")
	}
	for _, key := range []string{"viruscode", "goodcode", "virusregexp"} {
		if s, ok := c.take(key); ok {
			c.say(s, Needed, "", "clamd says itself what it found")
		}
	}
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || hostName.MatchString(s)
}

func isPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 1 && n <= 65535 && strconv.Itoa(n) == s
}

// command converts a scanner that is a program. It says whether it could.
func (c *converter) command(s Setting, script bool) bool {
	args, ok := words(s.Value)
	if !ok {
		c.say(s, Refused, "scanner.command", "it needs a shell, and none is run: write the commands into a script, and name that")
		return false
	}
	if strings.ContainsAny(args[0], " \t{") {
		c.say(s, Refused, "scanner.command", "the program's name has a space or a brace in it")
		return false
	}
	note := "a clamd would be many times as fast: without [[scanner]] one that is found is used"
	file := "{file}"
	if script {
		file, note = "{copy}", "the script gets the file as its last argument, and none of the others that P3Scan gave it"
	}
	infected, good, ok := c.codes()
	if !ok {
		c.say(s, Refused, "scanner.command", "its exit codes cannot be used: see viruscode and goodcode")
		if p, given := c.take("virusregexp"); given {
			c.say(p, Refused, "", "without that scanner it has no meaning")
		}
		return false
	}
	c.file.set(scannerTable+".type", quoted("command"))
	c.file.set(scannerTable+".command", quotedList(append(args, file)))
	c.file.set(scannerTable+".infected_codes", numbers(infected))
	c.file.set(scannerTable+".clean_codes", numbers(good))
	c.say(s, Mapped, "scanner.command", note)
	if p, ok := c.take("virusregexp"); ok {
		c.pattern(p)
	}
	return true
}

// codes returns the exit codes that mean infected, and those that mean clean.
func (c *converter) codes() (infected, good []int, ok bool) {
	infected, good, ok = []int{1}, []int{0}, true
	if s, given := c.take("viruscode"); given {
		if list, err := codeList(s.Value); err != nil || len(list) == 0 {
			c.say(s, Refused, "scanner.infected_codes", fmt.Sprintf("%q is no list of exit codes, 0 to 255 and 16 at most", s.Value))
			ok = false
		} else {
			infected = list
			c.say(s, Taken, "scanner.infected_codes", "")
		}
	}
	for _, n := range infected {
		if n == 0 {
			good = nil
		}
	}
	if s, given := c.take("goodcode"); given {
		list, err := codeList(s.Value)
		if err != nil || overlap(list, infected) {
			c.say(s, Refused, "scanner.clean_codes", fmt.Sprintf("%q is no list of exit codes, 0 to 255 and 16 at most, apart from those of viruscode", s.Value))
			return infected, good, false
		}
		for _, n := range list {
			if !overlap(good, []int{n}) {
				good = append(good, n)
			}
		}
		c.say(s, Taken, "scanner.clean_codes", "every other code means that the scan failed; P3Scan took it for clean")
	}
	return infected, good, ok && len(good) > 0
}

// codeList reads up to 16 numbers with commas or blanks between.
func codeList(s string) ([]int, error) {
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	if len(parts) > 16 {
		return nil, fmt.Errorf("%d codes", len(parts))
	}
	var out []int
	for _, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 || n > 255 {
			return nil, fmt.Errorf("%q", p)
		}
		out = append(out, n)
	}
	return out, nil
}

func overlap(a, b []int) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

func numbers(list []int) string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = strconv.Itoa(n)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

var groupSuffix = regexp.MustCompile(`/([0-9]+)$`)

// pattern converts the expression that finds the virus's name; its "/N" at the end picks a group there as here.
func (c *converter) pattern(s Setting) {
	expr, group := s.Value, 0
	var err error
	if m := groupSuffix.FindStringSubmatchIndex(s.Value); m != nil {
		expr = s.Value[:m[0]]
		if group, err = strconv.Atoi(s.Value[m[2]:m[3]]); err != nil {
			c.say(s, Refused, "scanner.name_pattern", "what stands behind the last / is no number of a group")
			return
		}
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		c.say(s, Refused, "scanner.name_pattern", "it is no regular expression (RE2): "+err.Error())
		return
	}
	if group > re.NumSubexp() {
		c.say(s, Refused, "scanner.name_pattern", fmt.Sprintf("it has no group %d in parentheses", group))
		return
	}
	c.file.set(scannerTable+".name_pattern", quoted(s.Value))
	c.say(s, Taken, "scanner.name_pattern", "")
}
