package gate

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"path"
	"runtime/debug"
	"strings"
	"sync"

	"lazaret/internal/content"
	"lazaret/internal/mail/attachment"
	"lazaret/internal/mail/message"
	"lazaret/internal/scan"
	"lazaret/internal/spool"
	"lazaret/internal/unpack"
)

// maxReadings bounds how deeply other readings (a part of a multipart, the data of a URL) are looked for in each other.
const maxReadings = 4

var errEnough = errors.New("one finding is enough")

// spot says where among the readings of each other an object was found.
type spot struct {
	depth   int
	guessed bool // on the way there is a content.Part that was a Guess
	chance  bool // and one that chance makes of anything
	cut     bool // and one that a mail server has cut off
}

func (p spot) below(part content.Part) spot {
	return spot{p.depth + 1, p.guessed || part.Guess, p.chance || part.Chance, p.cut || part.Cut}
}

// look asks the engines that which concerns about o as it stands, about what archives in it hold, and about what a client
// could read out of it besides.
func (g *Gate) look(ctx context.Context, s *state, o *scan.Object, which scan.Part, at spot) scan.Verdict {
	if at.depth == 0 && readAsMail(o, at) {
		return g.lookAtMail(ctx, s, o)
	}
	v := s.engines.Scan(ctx, o, which)
	if v.Outcome == scan.Infected {
		return v
	}
	v = v.Merge(g.unpacked(ctx, s, o, at))
	if v.Outcome == scan.Infected {
		return v
	}
	return v.Merge(g.readings(ctx, s, o, at))
}

// lookAtMail is look for a message, of which there are always several readings: they are judged while the engines look at
// the message as it stands, which is most of the work.
func (g *Gate) lookAtMail(ctx context.Context, s *state, o *scan.Object) scan.Verdict {
	var (
		inside scan.Verdict // Unscanned, which lets nothing pass, until it is something else
		wg     sync.WaitGroup
	)
	defer wg.Wait() // it reads the object, which the caller may close
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				inside = scan.IncompleteVerdict(scan.EngineError, "the gate panicked: %v\n%s", p, debug.Stack())
			}
		}()
		if inside = g.readings(ctx, s, o, spot{}); inside.Outcome == scan.Infected {
			cancel() // one finding is enough
		}
	})
	v := s.engines.Scan(ctx, o, scan.Whole)
	if v.Outcome == scan.Infected {
		return v
	}
	v = v.Merge(g.unpacked(ctx, s, o, spot{}))
	wg.Wait()
	return v.Merge(inside)
}

// unpacked opens the archives in o, asks the engines that do not unpack by themselves about each member, and says Incomplete
// where something could not be opened: no engine can have looked into it either. A mail in an archive is read as
// one, and what is only compressed is read as it would be without that.
func (g *Gate) unpacked(ctx context.Context, s *state, o *scan.Object, at spot) scan.Verdict {
	found := scan.CleanVerdict()
	src := unpack.Source{Blob: o.Body, Name: join(o.Path, o.Name)}
	single := compressed(o.Body)
	problems := unpack.Walk(ctx, g.opt.Pool, src, g.opt.Limits, func(p unpack.Part) error {
		member := &scan.Object{Body: p.Blob, Name: o.Name, Path: p.Path, Piece: o.Piece}
		found = found.Merge(located(s.engines.Scan(ctx, member, scan.Inner), p.Path))
		if p.Mail && isPart(member) {
			member.Type = "message/rfc822" // it has a part's header, and mail programs read that
		}
		if found.Outcome != scan.Infected && (single && p.Depth == 1 || p.Mail || isMail(member)) {
			below := at.below(content.Part{})
			below.cut = false
			found = found.Merge(g.readings(ctx, s, member, below))
		}
		return enough(found)
	})
	for _, p := range problems {
		if o.Piece && reasonOf(p.Kind) == scan.Undecodable {
			continue
		}
		if at.cut && p.Cut() {
			continue // nobody can open more of it than was looked at
		}
		found = found.Merge(scan.IncompleteVerdict(reasonOf(p.Kind), "%s", p.String()))
	}
	return found
}

// readings asks about each other reading of o every engine: none finds those by itself, but for what an ordinary mail has
// attached.
func (g *Gate) readings(ctx context.Context, s *state, o *scan.Object, at spot) scan.Verdict {
	found := scan.CleanVerdict()
	mail := readAsMail(o, at)
	var ordinary map[[sha256.Size]byte]attachment.Vouched
	if mail && at.depth == 0 && s.engines.ReadsMail() {
		var err error
		if ordinary, err = attachment.Plain(o.Body); err != nil {
			return scan.IncompleteVerdict(scan.EngineError, "%s: %v", o.Path, err)
		}
	}
	visit := func(p content.Part) error {
		if at.depth >= maxReadings && (p.Chance || at.chance) {
			return nil // what almost any bytes are need not be undone for ever
		}
		if at.depth >= maxReadings {
			found = found.Merge(scan.IncompleteVerdict(scan.TooDeep, "%s: parts inside each other, more than %d deep", join(o.Path, p.Path), maxReadings))
			return errEnough
		}
		part := &scan.Object{Body: p.Blob, Name: o.Name, Path: join(o.Path, p.Path), Type: p.Type, Piece: o.Piece || p.Piece}
		which := scan.Whole
		if v, ok := ordinary[p.Blob.SHA256()]; ok {
			if v.Encoded {
				return nil // nobody takes it for anything but the encoding of what is looked at itself
			}
			which, part.Type = scan.Attached, v.Type
		}
		v := located(g.look(ctx, s, part, which, at.below(p)), part.Path)
		if p.Guess && brokenOnly(v) {
			return nil
		}
		found = found.Merge(v)
		return enough(found)
	}
	src := content.Source{Blob: o.Body, Type: o.Type, TransferEncoding: o.TransferEncoding, Guessed: at.guessed}
	problems := content.Find(ctx, g.opt.Pool, src, g.opt.Content, visit)
	if mail && found.Outcome != scan.Infected {
		problems = append(problems, message.Find(ctx, g.opt.Pool, o.Body, g.opt.Content, visit)...)
	}
	for _, p := range problems {
		if o.Piece && p.Kind == content.Undecodable {
			continue
		}
		found = found.Merge(scan.IncompleteVerdict(reasonOfContent(p.Kind), "%s: %v", join(o.Path, p.Path), p.Err))
	}
	return found
}

// brokenOnly says whether all that is wrong with a reading is its form: it was the wrong way to read the object.
func brokenOnly(v scan.Verdict) bool {
	if v.Outcome != scan.Incomplete {
		return false
	}
	switch v.Reason {
	case scan.Undecodable, scan.TooLarge, scan.Bomb, scan.Encrypted:
		return true
	}
	return false
}

// compressed says whether b is one compressed thing, and no archive of several.
func compressed(b *spool.Blob) bool {
	switch unpack.FormatOf(b) {
	case unpack.Gzip, unpack.Bzip2, unpack.XZ, unpack.LZMA, unpack.Zstd, unpack.LZ4, unpack.Compress:
		return true
	}
	return false
}

// isMail says whether a mail client would open o as a message: by what it is said to be, whatever it looks like, or by its looks.
func isMail(o *scan.Object) bool {
	return strings.HasPrefix(strings.ToLower(o.Type), "message/") || calledMail(o) || message.Looks(headOf(o))
}

// readAsMail says whether o is read as a message. A mailbox is, by itself: the parts of a message may begin as one without an end.
func readAsMail(o *scan.Object, at spot) bool {
	return isMail(o) || at.depth == 0 && message.LooksMailbox(headOf(o))
}

// calledMail says whether o has the name of a file that is opened as a message, of mail, of news, or saved by a browser.
func calledMail(o *scan.Object) bool {
	name := o.Name
	if o.Path != "" { // then that is what it was found in
		name = partName(o.Path)
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".eml", ".nws", ".mht", ".mhtml":
		return true
	}
	return false
}

// isPart says whether o begins like a part of a mail.
func isPart(o *scan.Object) bool { return message.LooksPart(headOf(o)) }

// headOf returns the beginning of o, as much as says whether it is a mail; nil where it cannot be read.
func headOf(o *scan.Object) []byte {
	const enough = 4096
	if b, ok := o.Body.Bytes(); ok {
		return b[:min(len(b), enough)]
	}
	head := make([]byte, enough)
	n, err := o.Body.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return head[:n]
}

func join(outer, inner string) string {
	if outer == "" {
		return inner
	}
	return outer + "/" + inner
}

func enough(v scan.Verdict) error {
	if v.Outcome == scan.Infected {
		return errEnough
	}
	return nil
}

// located says where findings are whose engine did not know.
func located(v scan.Verdict, path string) scan.Verdict {
	if v.Outcome != scan.Infected {
		return v
	}
	findings := append([]scan.Finding(nil), v.Findings...)
	for i := range findings {
		if findings[i].Path == "" {
			findings[i].Path = path
		}
	}
	v.Findings = findings
	return v
}

// reasonOf translates the unpacker's word.
func reasonOf(k unpack.Kind) scan.Reason {
	switch k {
	case unpack.TooLarge:
		return scan.TooLarge
	case unpack.TooDeep:
		return scan.TooDeep
	case unpack.TooMany:
		return scan.TooMany
	case unpack.Bomb:
		return scan.Bomb
	case unpack.Encrypted:
		return scan.Encrypted
	case unpack.SpoolFull:
		return scan.SpoolFull
	case unpack.Cancelled:
		return scan.Timeout
	}
	return scan.Undecodable
}

// reasonOfContent translates the word of package content.
func reasonOfContent(k content.Kind) scan.Reason {
	switch k {
	case content.TooLarge:
		return scan.TooLarge
	case content.TooMany:
		return scan.TooMany
	case content.SpoolFull:
		return scan.SpoolFull
	case content.Cancelled:
		return scan.Timeout
	}
	return scan.Undecodable
}
