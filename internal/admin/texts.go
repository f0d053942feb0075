package admin

import (
	"golang.org/x/text/language"
)

// pageTexts are the words around the certificates, in one language. The steps for each system are in English, as the names of
// menus and settings are, which each system translates in its own way.
type pageTexts struct {
	Certificate string // heading
	Why         string // what it is for, and that devices have to trust it
	Signs       string // the authority in use is called
	Valid       string // "valid until"
	Compare     string // before trusting it
	Rotation    string // there is more than one
	Next        string
	Former      string
	Steps       string // heading of the instructions
	Proxy       string // heading
	Automatic   string // automatic configuration
}

// pageLanguages are those of the notices, English first.
//
//nolint:misspell // other languages
var pageLanguages = []struct {
	tag   string
	texts pageTexts
}{
	{"en", pageTexts{
		"Certificate",
		"To look into HTTPS, the gateway signs certificates by an authority of its own. A device that uses the gateway has to trust that.",
		"The authority:", "valid until",
		"Compare the fingerprint with what “lazaret ca show” prints on the gateway, or with what your administrator tells you, before you trust the certificate.",
		"The authority is being replaced. Trust all of these until that is over.",
		"next: in use from the gateway's next start on", "former", "Installation", "Proxy", "Automatic configuration:",
	}},
	{"de", pageTexts{
		"Zertifikat",
		"Um in HTTPS hineinzusehen, stellt das Gateway Zertifikate unter einer eigenen Zertifizierungsstelle aus. Ein Gerät, das das Gateway benutzt, muss ihr vertrauen.",
		"Die Zertifizierungsstelle:", "gültig bis",
		"Vergleichen Sie den Fingerabdruck mit dem, was „lazaret ca show“ auf dem Gateway ausgibt oder was Ihre Netzwerkbetreuung Ihnen nennt, bevor Sie dem Zertifikat vertrauen.",
		"Die Zertifizierungsstelle wird gerade ersetzt. Vertrauen Sie bis dahin allen diesen Zertifikaten.",
		"das nächste: in Gebrauch ab dem nächsten Start des Gateways", "das bisherige", "Installation", "Proxy", "Automatische Konfiguration:",
	}},
	{"es", pageTexts{
		"Certificado",
		"Para examinar HTTPS, la pasarela firma certificados con una autoridad propia. Un dispositivo que usa la pasarela tiene que confiar en ella.",
		"La autoridad:", "válida hasta",
		"Compare la huella digital con la que muestra «lazaret ca show» en la pasarela, o con la que le indique su administrador, antes de confiar en el certificado.",
		"Se está sustituyendo la autoridad. Hasta que termine, confíe en todos estos certificados.",
		"el siguiente: en uso desde el próximo arranque de la pasarela", "el anterior", "Instalación", "Proxy", "Configuración automática:",
	}},
	{"fr", pageTexts{
		"Certificat",
		"Pour examiner le trafic HTTPS, la passerelle signe des certificats avec sa propre autorité. Un appareil qui utilise la passerelle doit lui faire confiance.",
		"L’autorité :", "valable jusqu’au",
		"Comparez l’empreinte avec celle qu’affiche « lazaret ca show » sur la passerelle, ou celle que vous donne votre administrateur, avant de faire confiance au certificat.",
		"L’autorité est en cours de remplacement. Jusque-là, faites confiance à tous ces certificats.",
		"le prochain : utilisé dès le prochain démarrage de la passerelle", "l’ancien", "Installation", "Proxy", "Configuration automatique :",
	}},
	{"it", pageTexts{
		"Certificato",
		"Per esaminare HTTPS, il gateway firma certificati con una propria autorità. Un dispositivo che usa il gateway deve considerarla attendibile.",
		"L’autorità:", "valida fino al",
		"Confronti l’impronta con quella mostrata da «lazaret ca show» sul gateway, o con quella indicata dal Suo amministratore, prima di considerare attendibile il certificato.",
		"L’autorità è in corso di sostituzione. Fino ad allora consideri attendibili tutti questi certificati.",
		"il prossimo: in uso dal prossimo avvio del gateway", "il precedente", "Installazione", "Proxy", "Configurazione automatica:",
	}},
	{"nl", pageTexts{
		"Certificaat",
		"Om in HTTPS te kijken ondertekent de gateway certificaten met een eigen autoriteit. Een apparaat dat de gateway gebruikt, moet die vertrouwen.",
		"De autoriteit:", "geldig tot",
		"Vergelijk de vingerafdruk met wat “lazaret ca show” op de gateway toont, of met wat uw beheerder u opgeeft, voordat u het certificaat vertrouwt.",
		"De autoriteit wordt vervangen. Vertrouw tot die tijd al deze certificaten.",
		"het volgende: in gebruik vanaf de volgende start van de gateway", "het vorige", "Installatie", "Proxy", "Automatische configuratie:",
	}},
	{"pt", pageTexts{
		"Certificado",
		"Para examinar HTTPS, o gateway assina certificados com uma autoridade própria. Um dispositivo que usa o gateway precisa confiar nela.",
		"A autoridade:", "válida até",
		"Compare a impressão digital com a que “lazaret ca show” mostra no gateway, ou com a que o seu administrador lhe indicar, antes de confiar no certificado.",
		"A autoridade está sendo substituída. Até lá, confie em todos estes certificados.",
		"o próximo: em uso a partir da próxima inicialização do gateway", "o anterior", "Instalação", "Proxy", "Configuração automática:",
	}},
}

var pageMatcher = func() language.Matcher {
	tags := make([]language.Tag, len(pageLanguages))
	for i, l := range pageLanguages {
		tags[i] = language.MustParse(l.tag)
	}
	return language.NewMatcher(tags)
}()

// textsFor returns the texts that an Accept-Language header (RFC 9110, 12.5.4) prefers, and their language.
func textsFor(header string) (lang string, texts *pageTexts) {
	const longest = 1024
	if len(header) > longest {
		header = ""
	}
	_, i := language.MatchStrings(pageMatcher, header)
	return pageLanguages[i].tag, &pageLanguages[i].texts
}
