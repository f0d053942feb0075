// Lazaret: web traffic goes through the virus-scanning gateway.
// There is no "DIRECT" behind the proxy: what cannot be scanned does not go around it.
{{if .Unreachable -}}
// Attention: the proxy listens on the loopback address alone, and this client is another machine. See [web] listen.
{{end -}}
var proxies = {{.Proxies}};
var names = {{.Names}}; // "host", ".domain" with all below it, "*.domain" for what is below it
var nets = {{.Nets}}; // bits, then the address in words of 16 bits

// address returns an IP address in words of 16 bits, and null for a name. It never asks the DNS.
function address(host) {
  var m = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(host);
  if (m) return [(+m[1] << 8) | +m[2], (+m[3] << 8) | +m[4]];
  if (host.indexOf(":") < 0) return null;
  var halves = host.split("::"), out = [];
  if (halves.length > 2) return null;
  var head = groups(halves[0]), tail = halves.length > 1 ? groups(halves[1]) : [];
  if (!head || !tail) return null;
  var gap = 8 - head.length - tail.length;
  if (halves.length > 1 ? gap < 0 : gap != 0) return null;
  out = head;
  while (gap-- > 0) out = out.concat(0);
  out = out.concat(tail);
  for (var i = 0; i < 5; i++) if (out[i] != 0) return out;
  return out[5] == 0xffff ? out.slice(6) : out; // ::ffff:192.0.2.1
}

function groups(s) {
  if (s == "") return [];
  var parts = s.split(":"), out = [];
  for (var i = 0; i < parts.length; i++) {
    var v4 = i == parts.length - 1 && parts[i].indexOf(".") > 0 ? address(parts[i]) : null;
    if (v4) out = out.concat(v4);
    else if (/^[0-9a-f]{1,4}$/.test(parts[i])) out.push(parseInt(parts[i], 16));
    else return null;
  }
  return out;
}

function inside(a, net) {
  if (a.length != net.length - 1) return false;
  for (var i = 0, bits = net[0]; bits > 0; i++, bits -= 16) {
    var mask = bits >= 16 ? 0xffff : (0xffff << (16 - bits)) & 0xffff;
    if ((a[i] & mask) != (net[i + 1] & mask)) return false;
  }
  return true;
}

function endsWith(s, tail) {
  return s.length > tail.length && s.slice(-tail.length) == tail;
}

function named(host, name) {
  if (name.charAt(0) == "*") return endsWith(host, name.slice(1));
  if (name.charAt(0) == ".") return host == name.slice(1) || endsWith(host, name);
  return host == name;
}

function FindProxyForURL(url, host) {
  host = host.toLowerCase().replace(/^\[|\]$/g, "").replace(/%.*$/, "").replace(/\.$/, "");
  if (host == {{.Internal}}) return proxies;
  var a = address(host), i;
  if (a) {
    for (i = 0; i < nets.length; i++) if (inside(a, nets[i])) return "DIRECT";
    return proxies;
  }
  if (host.indexOf(".") < 0 && host.indexOf(":") < 0) return "DIRECT"; // a name of the local network
  var local = [".localhost", ".local", ".home.arpa", ".internal"]; // RFC 6761, RFC 6762, RFC 8375, and ICANN for private use
  for (i = 0; i < local.length; i++) if (endsWith(host, local[i])) return "DIRECT";
  for (i = 0; i < names.length; i++) if (named(host, names[i])) return "DIRECT";
  return proxies;
}
