package notice

// View returns what is shown of n, in the language that the Accept-Language header field (RFC 9110 section 12.5.4; a language
// tag alone is one, too) prefers, for those who make something else of it than an answer to a request: a mail. The texts of
// its rows are fit to be shown (see Clean), and are not escaped.
func (r *Renderer) View(acceptLanguage string, n Notice) View {
	return r.view(r.texts.choose(acceptLanguage), n)
}
