package unpack

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tree is a folder with what the tools pack: the test file, text, something that does not compress, a program.
func tree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	program, err := os.ReadFile("/bin/ls")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"eicar.com": eicar(), "text.txt": text(200_000), "sub/random.bin": random(50_000), "sub/ls": program, "sub/empty": nil,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var treeFiles = []string{"eicar.com", "text.txt", "sub/random.bin", "sub/ls"}

// run runs a command of the shell in dir, where it makes the file "out", and returns that.
func run(t testing.TB, dir, command string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "OUT="+out)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s (scripts/peers installs the tools): %v\n%s", command, err, msg)
	}
	if strings.Contains(command, "$OUT.") { // the tool insists on an extension
		all, _ := filepath.Glob(out + ".*")
		if len(all) != 1 {
			t.Fatalf("%s made %v", command, all)
		}
		out = all[0]
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// archivers are commands that pack a whole tree, with the format that comes out.
var archivers = []struct {
	command string
	format  Format
}{
	{"zip -qr $OUT.zip .", Zip},
	{"zip -qr0 $OUT.zip .", Zip},
	{"zip -qr -Z bzip2 $OUT.zip .", Zip},
	{"zip -qr -fz $OUT.zip .", Zip},
	{"zip -qr -fd $OUT.zip .", Zip},
	{"zip -qr - . | cat >$OUT", Zip},
	{"7z a -tzip -mm=Deflate64 $OUT.zip .", Zip},
	{"7z a -tzip -mm=LZMA $OUT.zip .", Zip},
	{"7z a -tzip -mm=BZip2 $OUT.zip .", Zip},
	{"bsdtar -c --format zip -f $OUT .", Zip},
	{"bsdtar -c --format zip -f - . | cat >$OUT", Zip},
	{"tar -cf $OUT .", Tar},
	{"tar -cf $OUT --format=v7 .", Tar},
	{"tar -cf $OUT --format=ustar .", Tar},
	{"tar -cf $OUT --format=pax .", Tar},
	{"tar -cf $OUT --format=gnu .", Tar},
	{"bsdtar -cf $OUT --format=pax .", Tar},
	{"find . | cpio -o -H newc >$OUT", Cpio},
	{"find . | cpio -o -H crc >$OUT", Cpio},
	{"find . | cpio -o -H odc >$OUT", Cpio},
	{"find . | cpio -o -H bin >$OUT", Cpio},
	{"bsdtar -cf $OUT --format=newc .", Cpio},
	{"7z a $OUT.7z .", SevenZip},
	{"7z a -mx=9 $OUT.7z .", SevenZip},
	{"7z a -ms=off $OUT.7z .", SevenZip},
	{"7z a -m0=LZMA $OUT.7z .", SevenZip},
	{"7z a -m0=LZMA2 -mhc=off $OUT.7z .", SevenZip},
	{"7z a -m0=PPMd $OUT.7z .", SevenZip},
	{"7z a -m0=BZip2 $OUT.7z .", SevenZip},
	{"7z a -m0=Deflate $OUT.7z .", SevenZip},
	{"7z a -m0=Deflate64 $OUT.7z .", SevenZip},
	{"7z a -m0=Copy $OUT.7z .", SevenZip},
	{"7z a -m0=BCJ -m1=LZMA $OUT.7z .", SevenZip},
	{"7z a -m0=BCJ2 -m1=LZMA -m2=LZMA -m3=LZMA -mb0:1 -mb0s1:2 -mb0s2:3 $OUT.7z .", SevenZip},
	{"7z a -m0=Delta:4 -m1=LZMA2 $OUT.7z .", SevenZip},
	{"bsdtar -c --format 7zip -f $OUT .", SevenZip},
	{"gcab -c $OUT eicar.com text.txt sub/random.bin sub/ls", Cab},
	{"gcab -cz $OUT eicar.com text.txt sub/random.bin sub/ls", Cab},
}

func TestArchivesOfRealTools(t *testing.T) {
	dir := tree(t)
	for _, a := range archivers {
		t.Run(strings.ReplaceAll(a.command, "/", "|"), func(t *testing.T) {
			b := run(t, dir, a.command)
			if got := FormatOf(blobOf(t, testPool(t, nil), b)); got != a.format {
				t.Errorf("FormatOf says %q", got)
			}
			f := walk(t, "a", b, Limits{})
			f.wantClean(t)
			for _, name := range treeFiles {
				want, _ := os.ReadFile(filepath.Join(dir, name))
				if !bytes.Equal(f.parts["a/"+name], want) {
					t.Errorf("%s differs in:\n%v", name, f)
				}
			}
			if len(f.order) != len(treeFiles) {
				t.Errorf("members:\n%v", f)
			}
		})
	}
}

func TestCompressedFilesOfRealTools(t *testing.T) {
	dir := tree(t)
	for _, c := range []struct {
		command string
		format  Format
		name    string
		want    string
	}{
		{"gzip -nc IN >$OUT", Gzip, "a.txt.gz", "a.txt"},
		{"gzip -nc IN >$OUT", Gzip, "a.tgz", "a.tar"},
		{"gzip -nc IN >$OUT", Gzip, "what", "content"},
		{"gzip -c IN >$OUT", Gzip, "other.gz", "IN"},
		{"bzip2 -c IN >$OUT", Bzip2, "a.bz2", "a"},
		{"xz -c IN >$OUT", XZ, "a.xz", "a"},
		{"xz -c -T2 --block-size=20000 IN >$OUT", XZ, "a.xz", "a"},
		{"xz -c --check=none IN >$OUT", XZ, "a.xz", "a"},
		{"xz -c --check=sha256 -9e IN >$OUT", XZ, "a.xz", "a"},
		{"lzma -c IN >$OUT", LZMA, "a.lzma", "a"},
		{"7z a -tlzma -si $OUT.lzma <IN || xz --format=lzma -c IN >$OUT.lzma", LZMA, "a.lzma", "a"},
		{"zstd -qc IN >$OUT", Zstd, "a.zst", "a"},
		{"zstd -qc --ultra -22 --long=27 IN >$OUT", Zstd, "a.zst", "a"},
		{"lz4 -qc IN >$OUT", LZ4, "a.lz4", "a"},
		{"lz4 -qc -9 -BD --content-size IN >$OUT", LZ4, "a.lz4", "a"},
		{"lz4 -qlc IN >$OUT", LZ4, "a.lz4", "a"},
		{"compress -c IN >$OUT", Compress, "a.Z", "a"},
		{"compress -c -b 12 IN >$OUT", Compress, "a.Z", "a"},
	} {
		for _, in := range treeFiles {
			t.Run(strings.ReplaceAll(c.command+" of "+in, "/", "|"), func(t *testing.T) {
				if in == "sub/random.bin" && c.format == Compress {
					t.Skip("compress leaves what it cannot make smaller")
				}
				work := t.TempDir()
				want, err := os.ReadFile(filepath.Join(dir, in))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(work, "IN"), want, 0o644); err != nil {
					t.Fatal(err)
				}
				b := run(t, work, c.command)
				if got := FormatOf(blobOf(t, testPool(t, nil), b)); got != c.format {
					t.Fatalf("FormatOf says %q", got)
				}
				f := walk(t, c.name, b, Limits{})
				f.wantClean(t, c.name+"/"+c.want)
				if !bytes.Equal(f.parts[c.name+"/"+c.want], want) {
					t.Errorf("%s has %d bytes, want %d", c.want, len(f.parts[c.name+"/"+c.want]), len(want))
				}
			})
		}
	}
}
