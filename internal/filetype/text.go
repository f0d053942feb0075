package filetype

import (
	"bytes"
	"path"
	"strings"
	"unicode/utf16"
)

// textSize is how much of a text is looked at for what makes it a script.
const textSize = 16 << 10

// text returns what kind of script or shortcut a text is.
func (f *file) text() string {
	t, ok := plain(f.head[:min(len(f.head), textSize)])
	if !ok {
		return ""
	}
	trimmed := strings.TrimLeft(t, " \t\r\n")
	ext := extension(f.name)
	switch {
	case strings.HasPrefix(t, "#!"):
		return "shebang"
	case strings.HasPrefix(trimmed, "windows registry editor version"), strings.HasPrefix(trimmed, "regedit4"):
		return "reg"
	case strings.HasPrefix(trimmed, "[internetshortcut]"):
		return "url"
	case strings.Contains(t, "<hta:application"), ext == "hta" && strings.Contains(t, "<"):
		return "hta"
	case strings.HasPrefix(trimmed, "@echo off"), strings.HasPrefix(trimmed, "@echo on"), strings.HasPrefix(trimmed, "@setlocal"),
		ext == "bat", ext == "cmd":
		return "batch"
	case ext == "ps1", ext == "psm1", ext == "psd1", powerShell(t):
		return "powershell"
	case ext == "vbs", ext == "vbe", visualBasic(t):
		return "vbscript"
	case ext == "wsf", ext == "wsh", ext == "jse", windowsScript(t):
		return "wsh"
	}
	return ""
}

// plain returns head in lower case where it is text, in UTF-8, a code page, or UTF-16 with a mark.
func plain(head []byte) (string, bool) {
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		little := head[0] == 0xFF
		units := make([]uint16, 0, len(head)/2)
		for i := 2; i+1 < len(head); i += 2 {
			a, b := uint16(head[i]), uint16(head[i+1])
			if little {
				a, b = b, a
			}
			units = append(units, a<<8|b)
		}
		return strings.ToLower(string(utf16.Decode(units))), true
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		head = head[3:]
	}
	if len(head) == 0 || bytes.IndexByte(head, 0) >= 0 {
		return "", false
	}
	return strings.ToLower(string(head)), true
}

// extension returns what comes after the last dot, as Windows reads it: it drops dots and spaces at the end, and what comes
// after a colon.
func extension(name string) string {
	name = path.Base(strings.ReplaceAll(name, "\\", "/"))
	name, _, _ = strings.Cut(name, ":")
	ext := path.Ext(strings.TrimRight(name, ". "))
	return strings.ToLower(strings.TrimPrefix(ext, "."))
}

// powerShell says whether a text in lower case looks like PowerShell: what another language has too does not count.
func powerShell(t string) bool {
	return several(t, "write-host", "invoke-expression", "invoke-webrequest", "new-object ", "set-executionpolicy", "start-process",
		"-erroraction", "[cmdletbinding", "frombase64string(", "param(", "param (", "$psscriptroot", "get-childitem", "downloadstring(", "-windowstyle hidden") >= 2
}

// visualBasic says whether a text in lower case looks like VBScript outside of a web page.
func visualBasic(t string) bool {
	return !strings.Contains(t, "<html") && strings.Contains(t, "createobject(") &&
		several(t, "\ndim ", "wscript.", "set ", "end sub", "end function", "on error resume next", "execute(", "chr(") >= 2
}

// windowsScript says whether a text in lower case is a script for Windows' own host: scripts of web pages cannot use it.
func windowsScript(t string) bool {
	return several(t, "wscript.createobject", "wscript.shell", "wscript.scriptfullname", "activexobject(") >= 2 || strings.Contains(t, "wscript.createobject(")
}

// several counts which of words are in t.
func several(t string, words ...string) (n int) {
	for _, w := range words {
		if strings.Contains(t, w) {
			n++
		}
	}
	return n
}
