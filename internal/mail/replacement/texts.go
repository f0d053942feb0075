package replacement

// texts is what a notice says in one language.
type texts struct {
	// What a subject begins with, by what happened.
	infected, notAllowed, notScanned string
	// The paragraphs: what happened, and what the reader can do.
	whyInfected, whyNotAllowed, whyNotScanned string
	doInfected, doOther                       string
	// Labels.
	virus, from, to, date, subject, connection, quarantine, reason, reference string
	deleted                                                                   string
	// connectionText has places for protocol, server and client.
	connectionText string
	footer         string
	// removed has places for an attachment's name, the rule, and the reference.
	removed string
	colon   string // between a label and its value
}

// locales has the languages.
//
//nolint:misspell // they are not English
var locales = map[string]texts{
	"en": {
		infected: "[Virus] found in a mail to you:", notAllowed: "[Not delivered] a mail to you is not allowed:", notScanned: "[Not delivered] a mail to you could not be checked:",
		whyInfected:   "A mail to you contained malware: a virus or another harmful program. It was not delivered; this message stands in its place.",
		whyNotAllowed: "A mail to you has something in it that the rules of your network do not let in. It was not delivered; this message stands in its place.",
		whyNotScanned: "A mail to you could not be checked for viruses. It was not delivered; this message stands in its place.",
		doInfected:    "You need not do anything. The sender's address may be forged: do not answer in anger. If you are sure that this is a mistake, turn to the people who look after your network and quote the reference.",
		doOther:       "If you need the mail, turn to the people who look after your network and quote the reference.",
		virus:         "Virus", from: "From", to: "To", date: "Date", subject: "Subject", connection: "Connection", quarantine: "Quarantine", reason: "Reason", reference: "Reference",
		deleted: "No copy was kept.", connectionText: "%s from %s to %s", footer: "This message was written by the mail gateway %s.", colon: ": ",
		removed: "The attachment “%s” was taken out of this mail: the rules of your network (%s) do not let it in. Reference: %s",
	},
	"de": {
		infected: "[Virus] in einer Mail an Sie gefunden:", notAllowed: "[Nicht zugestellt] eine Mail an Sie ist nicht zugelassen:", notScanned: "[Nicht zugestellt] eine Mail an Sie konnte nicht geprüft werden:",
		whyInfected:   "Eine Mail an Sie enthielt Schadsoftware: einen Virus oder ein anderes schädliches Programm. Sie wurde nicht zugestellt; diese Nachricht steht an ihrer Stelle.",
		whyNotAllowed: "Eine Mail an Sie enthält etwas, das die Regeln Ihres Netzwerks nicht durchlassen. Sie wurde nicht zugestellt; diese Nachricht steht an ihrer Stelle.",
		whyNotScanned: "Eine Mail an Sie konnte nicht auf Viren geprüft werden. Sie wurde nicht zugestellt; diese Nachricht steht an ihrer Stelle.",
		doInfected:    "Sie müssen nichts tun. Die Absenderadresse kann gefälscht sein: Antworten Sie nicht aus Ärger. Wenn Sie sicher sind, dass es ein Irrtum ist, wenden Sie sich an Ihre Netzwerkbetreuung und nennen Sie die Vorgangsnummer.",
		doOther:       "Wenn Sie die Mail brauchen, wenden Sie sich an Ihre Netzwerkbetreuung und nennen Sie die Vorgangsnummer.",
		virus:         "Virus", from: "Von", to: "An", date: "Datum", subject: "Betreff", connection: "Verbindung", quarantine: "Quarantäne", reason: "Grund", reference: "Vorgangsnummer",
		deleted: "Es wurde keine Kopie aufbewahrt.", connectionText: "%s von %s zu %s", footer: "Diese Nachricht wurde vom Mail-Gateway %s erstellt.", colon: ": ",
		removed: "Der Anhang „%s“ wurde aus dieser Mail entfernt: Die Regeln Ihres Netzwerks (%s) lassen ihn nicht durch. Vorgangsnummer: %s",
	},
	"es": {
		infected: "[Virus] encontrado en un mensaje para usted:", notAllowed: "[No entregado] un mensaje para usted no está permitido:", notScanned: "[No entregado] no se pudo analizar un mensaje para usted:",
		whyInfected:   "Un mensaje para usted contenía un programa malicioso: un virus u otro programa dañino. No se ha entregado; este mensaje ocupa su lugar.",
		whyNotAllowed: "Un mensaje para usted contiene algo que las reglas de su red no dejan pasar. No se ha entregado; este mensaje ocupa su lugar.",
		whyNotScanned: "No se pudo comprobar si un mensaje para usted contiene virus. No se ha entregado; este mensaje ocupa su lugar.",
		doInfected:    "No tiene que hacer nada. La dirección del remitente puede ser falsa: no responda en caliente. Si está seguro de que es un error, diríjase a los responsables de su red e indique el número de referencia.",
		doOther:       "Si necesita el mensaje, diríjase a los responsables de su red e indique el número de referencia.",
		virus:         "Virus", from: "De", to: "Para", date: "Fecha", subject: "Asunto", connection: "Conexión", quarantine: "Cuarentena", reason: "Motivo", reference: "Referencia",
		deleted: "No se ha guardado ninguna copia.", connectionText: "%s de %s a %s", footer: "Este mensaje ha sido generado por la pasarela de correo %s.", colon: ": ",
		removed: "El archivo adjunto «%s» se ha quitado de este mensaje: las reglas de su red (%s) no lo dejan pasar. Referencia: %s",
	},
	"fr": {
		infected: "[Virus] trouvé dans un message pour vous :", notAllowed: "[Non remis] un message pour vous n'est pas autorisé :", notScanned: "[Non remis] un message pour vous n'a pas pu être vérifié :",
		whyInfected:   "Un message qui vous était adressé contenait un programme malveillant : un virus ou un autre programme nuisible. Il n'a pas été remis ; le présent message le remplace.",
		whyNotAllowed: "Un message qui vous était adressé contient quelque chose que les règles de votre réseau ne laissent pas entrer. Il n'a pas été remis ; le présent message le remplace.",
		whyNotScanned: "La recherche de virus dans un message qui vous était adressé n'a pas été possible. Il n'a pas été remis ; le présent message le remplace.",
		doInfected:    "Vous n'avez rien à faire. L'adresse de l'expéditeur est peut-être falsifiée : ne répondez pas sous le coup de la colère. Si vous êtes sûr qu'il s'agit d'une erreur, adressez-vous aux responsables de votre réseau en indiquant le numéro de référence.",
		doOther:       "Si vous avez besoin de ce message, adressez-vous aux responsables de votre réseau en indiquant le numéro de référence.",
		virus:         "Virus", from: "De", to: "À", date: "Date", subject: "Objet", connection: "Connexion", quarantine: "Quarantaine", reason: "Raison", reference: "Référence",
		deleted: "Aucune copie n'a été conservée.", connectionText: "%s de %s vers %s", footer: "Ce message a été généré par la passerelle de messagerie %s.", colon: " : ",
		removed: "La pièce jointe « %s » a été retirée de ce message : les règles de votre réseau (%s) ne la laissent pas entrer. Référence : %s",
	},
	"it": {
		infected: "[Virus] trovato in un messaggio per Lei:", notAllowed: "[Non consegnato] un messaggio per Lei non è consentito:", notScanned: "[Non consegnato] non è stato possibile controllare un messaggio per Lei:",
		whyInfected:   "Un messaggio per Lei conteneva un programma dannoso: un virus o qualcosa di simile. Non è stato consegnato; questo messaggio lo sostituisce.",
		whyNotAllowed: "Un messaggio per Lei contiene qualcosa che le regole della Sua rete non lasciano passare. Non è stato consegnato; questo messaggio lo sostituisce.",
		whyNotScanned: "Non è stato possibile cercare virus in un messaggio per Lei. Non è stato consegnato; questo messaggio lo sostituisce.",
		doInfected:    "Non deve fare nulla. L'indirizzo del mittente può essere falso: non risponda d'impulso. Se è sicuro che si tratti di un errore, si rivolga ai responsabili della Sua rete indicando il numero di riferimento.",
		doOther:       "Se ha bisogno del messaggio, si rivolga ai responsabili della Sua rete indicando il numero di riferimento.",
		virus:         "Virus", from: "Da", to: "A", date: "Data", subject: "Oggetto", connection: "Connessione", quarantine: "Quarantena", reason: "Motivo", reference: "Riferimento",
		deleted: "Non è stata conservata alcuna copia.", connectionText: "%s da %s a %s", footer: "Questo messaggio è stato generato dal gateway di posta %s.", colon: ": ",
		removed: "L'allegato «%s» è stato tolto da questo messaggio: le regole della Sua rete (%s) non lo lasciano passare. Riferimento: %s",
	},
	"nl": {
		infected: "[Virus] gevonden in een bericht aan u:", notAllowed: "[Niet bezorgd] een bericht aan u is niet toegestaan:", notScanned: "[Niet bezorgd] een bericht aan u kon niet worden gecontroleerd:",
		whyInfected:   "Een bericht aan u bevatte malware: een virus of een ander schadelijk programma. Het is niet bezorgd; dit bericht komt ervoor in de plaats.",
		whyNotAllowed: "Een bericht aan u bevat iets wat de regels van uw netwerk niet doorlaten. Het is niet bezorgd; dit bericht komt ervoor in de plaats.",
		whyNotScanned: "Een bericht aan u kon niet op virussen worden gecontroleerd. Het is niet bezorgd; dit bericht komt ervoor in de plaats.",
		doInfected:    "U hoeft niets te doen. Het adres van de afzender kan vervalst zijn: antwoord niet uit boosheid. Weet u zeker dat dit een vergissing is, neem dan contact op met uw netwerkbeheerder en vermeld het referentienummer.",
		doOther:       "Hebt u het bericht nodig, neem dan contact op met uw netwerkbeheerder en vermeld het referentienummer.",
		virus:         "Virus", from: "Van", to: "Aan", date: "Datum", subject: "Onderwerp", connection: "Verbinding", quarantine: "Quarantaine", reason: "Reden", reference: "Referentie",
		deleted: "Er is geen kopie bewaard.", connectionText: "%s van %s naar %s", footer: "Dit bericht is gemaakt door de mailgateway %s.", colon: ": ",
		removed: "De bijlage ‘%s’ is uit dit bericht verwijderd: de regels van uw netwerk (%s) laten die niet door. Referentie: %s",
	},
	"pt": {
		infected: "[Vírus] encontrado em uma mensagem para você:", notAllowed: "[Não entregue] uma mensagem para você não é permitida:", notScanned: "[Não entregue] não foi possível verificar uma mensagem para você:",
		whyInfected:   "Uma mensagem para você continha um programa malicioso: um vírus ou outro programa nocivo. Não foi entregue; esta mensagem a substitui.",
		whyNotAllowed: "Uma mensagem para você contém algo que as regras da sua rede não deixam passar. Não foi entregue; esta mensagem a substitui.",
		whyNotScanned: "Não foi possível procurar vírus em uma mensagem para você. Não foi entregue; esta mensagem a substitui.",
		doInfected:    "Você não precisa fazer nada. O endereço do remetente pode ser falso: não responda no calor do momento. Se tiver certeza de que é um engano, procure os responsáveis pela sua rede e informe o número de referência.",
		doOther:       "Se precisar da mensagem, procure os responsáveis pela sua rede e informe o número de referência.",
		virus:         "Vírus", from: "De", to: "Para", date: "Data", subject: "Assunto", connection: "Conexão", quarantine: "Quarentena", reason: "Motivo", reference: "Referência",
		deleted: "Não foi guardada nenhuma cópia.", connectionText: "%s de %s para %s", footer: "Esta mensagem foi gerada pelo gateway de e-mail %s.", colon: ": ",
		removed: "O anexo “%s” foi retirado desta mensagem: as regras da sua rede (%s) não o deixam passar. Referência: %s",
	},
}
