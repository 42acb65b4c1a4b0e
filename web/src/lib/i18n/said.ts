// What master and workers say in English, in the user's language: by its code where it has one, else by the sentence. What is not known
// here stays as it was said. Pure.
import { en, type Texts } from './en';

/** Refusals of the API by code; those of a field are said by their sentence. */
const PROBLEMS: Record<string, string> = {
  bad_id: 'Eso no es el identificador de un trabajo.',
  bad_json: 'El maestro no pudo leer lo enviado como JSON.',
  body_too_large: 'Lo enviado es más grande de lo que acepta este maestro.',
  body_too_slow: 'El envío tardó demasiado.',
  body_incomplete: 'El envío se cortó antes de terminar.',
  budget_spent: 'El presupuesto de hoy para IA está agotado. Empieza de nuevo a medianoche UTC.',
  busy: 'La flota tiene más trabajo del que puede aceptar. Prueba otra vez en un momento.',
  cancelled: 'Se detuvo.',
  conversation_busy: 'Una pregunta de esa conversación aún no tiene respuesta: cancélala o espera.',
  conversation_full: 'La conversación está llena: empieza otra.',
  credential_lost: 'Su clave de API no se guardó: pregunta otra vez con la clave.',
  id_taken: 'Ese nombre ya está en uso.',
  idempotency_in_work: 'El mismo envío aún está en curso: prueba otra vez en un momento.',
  internal: 'El maestro cometió un error; su registro dice más.',
  job_ended: 'El trabajo ya terminó.',
  job_not_ended: 'El trabajo está terminando en este momento: prueba otra vez.',
  method_not_allowed: 'El maestro no acepta esa operación.',
  no_such_route: 'El maestro no conoce esa dirección.',
  not_divided: 'El trabajo es una sola unidad: no hay nada que pueda faltar o repetirse.',
  not_found: 'Eso ya no existe en el maestro.',
  not_ready: 'El maestro aún no está listo.',
  not_retryable: 'Solo se reintenta un trabajo fallido o cancelado.',
  origin_not_allowed: 'El maestro no acepta páginas de esta dirección (FLOTA_ALLOWED_ORIGINS).',
  store_full: 'Al maestro no le queda espacio en disco.',
  too_many_browsers: 'Hay demasiados navegadores conectados (FLOTA_BROWSERS_MAX).',
  too_many_conversations: 'Hay demasiadas conversaciones: borra alguna primero.',
  too_many_sources: 'Hay demasiadas fuentes: quita una primero.',
  too_many_streams: 'Hay demasiadas conexiones abiertas al maestro.',
  unauthorized: 'El token falta o no es el de esta flota.',
  unavailable: 'El maestro no puede atender eso ahora. Prueba otra vez en un momento.',
  unknown_session: 'El maestro ya no conoce esta sesión.',
};

/** Sentences, the first that fits; `$1` is what the first parentheses hold, itself translated. */
const SENTENCES: [RegExp, string][] = [
  // What is wrong with a field.
  [/^((?:payload|requires|labels|retry|config)[\w.[\]]*|[a-z]+(?:_[a-z]+)+|[a-z]+): (.+)$/s, '$1: $2'],
  [/^must be (\S+) to (\S+) bytes without control characters$/, 'debe tener de $1 a $2 bytes, sin caracteres de control'],
  [/^must be (\S+) to (\S+) lowercase letters, digits and '-'$/, 'debe tener de $1 a $2 letras minúsculas, cifras o «-»'],
  [/^must be (\S+) to (\S+) pools$/, 'debe haber de $1 a $2 pools'],
  [/^must be (\S+) to (\S+) \(a day\)$/, 'debe estar entre $1 y $2 (un día)'],
  [/^must be (\S+) to (\S+) \(a week\)$/, 'debe estar entre $1 y $2 (una semana)'],
  [/^(?:must be|is) ([\d.]+) to ([\d.]+)$/, 'debe estar entre $1 y $2'],
  [/^is at least (\S+)$/, 'debe ser al menos $1'],
  [/^must be at most (\S+) bytes, has (\S+)$/, 'puede tener $1 bytes como mucho, tiene $2'],
  [/^has (\S+) bytes, at most (\S+)$/, 'tiene $1 bytes, puede tener $2 como mucho'],
  [/^needs (\S+) bytes \((\S+) hex digits\), has (\S+)$/, 'debe tener $1 bytes ($2 cifras hexadecimales), tiene $3'],
  [/^needs at least one text, at most (\S+)$/, 'hace falta al menos un texto, y $1 como mucho'],
  [/^needs at least one (?:input|message)$/, 'hace falta al menos una entrada'],
  [/^needs a message of the user$/, 'falta la pregunta'],
  [/^is empty$/, 'está vacío'],
  [/^has at most (\S+) entries$/, 'puede haber $1 como mucho'],
  [/^names \(without '='\) and values are at most (\S+) bytes without control characters$/, 'nombres (sin «=») y valores pueden tener $1 bytes como mucho, sin caracteres de control'],
  [/^missing field `(.+)`.*$/s, 'falta «$1»'],
  [/^unknown field `(.+?)`.*$/s, 'no se conoce el campo «$1»'],
  [/^invalid type: (.+), expected (.+?)(?: at line.*)?$/s, 'no es del tipo que debe ser: $1, se esperaba $2'],
  [/^invalid value: (.+), expected (.+?)(?: at line.*)?$/s, 'no es un valor posible: $1, se esperaba $2'],
  [/^hex needs an even number of digits, this has (\d+)$/, 'las cifras hexadecimales van de dos en dos, aquí hay $1'],
  [/^'(.+)' at position (\d+) is not a hex digit$/, '«$1», en la posición $2, no es una cifra hexadecimal'],
  [/^the nonce takes 4 bytes at nonce_offset (\S+) but the blob has (\S+) bytes$/, 'el nonce ocupa 4 bytes desde el byte $1, pero el blob tiene $2'],
  [/^is (\S+), beyond 2\^32 \((\S+)\)$/, 'es $1, más allá de 2^32 ($2)'],
  [/^the range (\S+) is empty or reversed: nonce_start must be below nonce_end$/, 'el rango $1 está vacío o al revés: el principio debe ser menor que el final'],
  [/^must be http:\/\/host:port or https:\/\/host:port of the node's RPC.*$/s, 'debe ser http://host:puerto o https://host:puerto del RPC del nodo'],
  [/^must be stratum\+tcp:\/\/HOST:PORT, or stratum\+ssl:\/\/HOST:PORT for TLS.*$/s, 'debe ser stratum+tcp://HOST:PUERTO, o stratum+ssl://HOST:PUERTO con TLS'],
  [/^must not hold user and password: they have fields of their own$/, 'no debe llevar usuario ni contraseña: tienen sus propios campos'],
  [/^is needed with a password$/, 'hace falta si hay contraseña'],
  [/^no worker serves '(.+)'; there are (.*)$/s, 'ningún trabajador ofrece «$1»; hay $2'],
  // Monero addresses.
  [/^a Monero address has 95 or 106 characters, this has (\S+)$/, 'una dirección de Monero tiene 95 o 106 caracteres, esta tiene $1'],
  [/^it is too short for a Monero address$/, 'es demasiado corta para una dirección de Monero'],
  [/^its checksum is wrong: a character is missing or mistyped$/, 'su suma de control no cuadra: falta un carácter o está mal escrito'],
  [/^it is of no network of Monero$/, 'no es de ninguna red de Monero'],
  [/^it is a subaddress, to which no block can be mined: give the wallet's primary address$/, 'es una subdirección, a la que no se puede minar: da la dirección principal de la cartera'],
  [/^it is no base58 of Monero's: a character is mistyped$/, 'no es base58 de Monero: hay un carácter mal escrito'],
  [/^'(.+)' stands in no address$/, '«$1» no aparece en ninguna dirección'],
  // Why a worker is set aside, or gets nothing.
  [/^(\d+) faults in a row, the last: it (.+)$/s, '$1 fallos seguidos, el último: $2'],
  [/^failed to compute for want of memory or by a defect$/, 'no pudo calcular por falta de memoria o por un defecto'],
  [/^sent a result that was refused: (.+)$/s, 'envió un resultado que se rechazó: $1'],
  [/^died while it computed$/, 'se cayó mientras calculaba'],
  [/^did not answer in time$/, 'no contestó a tiempo'],
  [
    /^its result of unit (\S+) was wrong \((.+)\); (\d+) earlier units are computed again, (\d+) of jobs that have ended are marked as suspect$/s,
    'su resultado de la unidad $1 era incorrecto ($2); $3 unidades anteriores se calculan de nuevo y $4 de trabajos ya terminados quedan marcadas como dudosas',
  ],
  [/^input (\d+) has another hash$/, 'la entrada $1 tiene otro hash'],
  [/^did not accept what was published to it; tried again at (\S+)$/, 'no aceptó lo que se le envió; se intenta otra vez el $1'],
  // Why a worker does not hash now.
  [/^it is not between (\S+) and (\S+)$/, 'no es una hora entre las $1 y las $2'],
  [/^the machine runs on battery$/, 'la máquina funciona con batería'],
  [/^somebody works at this machine$/, 'alguien trabaja en esta máquina'],
  [/^the machine is hot: (.+)$/, 'la máquina está caliente: $1'],
  [/^other programs use (.+) of the processors$/, 'otros programas usan el $1 de los procesadores'],
  // What a provider of AI did. The worker says with which key.
  [/^(.+); asking (.+) for '([^']+)'$/s, '$1; se le preguntó a $2 con el modelo «$3»'],
  [/^the local AI$/, 'la IA local'],
  [
    /^your API key is not for whom this question is put to, and your budget of the fleet for today does not hold it: ask Gemini, or wait until the budget is new$/,
    'tu clave de API no sirve para quien recibe esta pregunta, y tu presupuesto de hoy en la flota no alcanza: pregunta a Gemini, o espera a que se renueve',
  ],
  [/^your API key$/, 'tu clave de API'],
  [/^this worker's API key$/, 'la clave de API de este trabajador'],
  [/^(.+) refuses (.+): correct it, or make a new one where you got it$/, '$1 rechaza $2: corrígela, o crea una nueva donde la obtuviste'],
  [/^(.+) forbids this use of (.+) to (.+) \((\d+)\): see what its account may do$/, '$1 no permite este uso de $2 a $3 ($4): mira qué puede hacer su cuenta'],
  [/^(.+) doesn't serve (.+) \(failed precondition\): its country, its billing or its terms$/, '$1 no atiende a $2: por su país, su facturación o sus condiciones'],
  [/^(.+) wants (.+) to be paid for first \((\d+)\)$/, '$1 pide que antes se pague $2 ($3)'],
  [/^(.+) has no model '(.+)' \(any more\): choose another one$/, '$1 no tiene (o ya no tiene) el modelo «$2»: elige otro'],
  [/^(.+) refused the request for '(.+)' with status (\d+)$/, '$1 rechazó la petición para «$2» con el estado $3'],
  [/^(.+) lets (.+) ask '(.+)' again in (\d+) s$/, '$1 deja que $2 pregunte otra vez a «$3» en $4 s'],
  [/^(.+) was asked too much with (.+): wait a while$/, 'a $1 se le preguntó demasiado con $2: espera un poco'],
  [
    /^(.+)'s quota a day of (.+) for '(.+)' is used up until midnight in California: use another key or model$/,
    'la cuota diaria de $1 de $2 para «$3» está agotada hasta medianoche en California: usa otra clave u otro modelo',
  ],
  [/^(.+) can't answer at the moment \(status (\d+)\)$/, '$1 no puede responder en este momento (estado $2)'],
  [/^(.+) can't be reached: (.+)$/s, 'no se puede llegar a $1: $2'],
  [/^(.+) did not answer within the attempt's time$/, '$1 no respondió dentro del tiempo del intento'],
  [/^the answer of (.+) broke off: (.+)$/s, 'la respuesta de $1 se interrumpió: $2'],
  [/^(.+) failed with '(.+)' several times in a row: it is asked again in (\d+) s$/, '$1 falló con «$2» varias veces seguidas: se le pregunta otra vez en $3 s'],
  // Why a job ended.
  [/^failure (\d+) of the (\d+) that were asked for$/, 'fallo $1 de los $2 que se pidieron'],
  [/^the job's deadline has passed$/, 'el plazo del trabajo ha pasado'],
  [/^job (\S+), which this one waits for, (?:is \w+|did not complete)$/, 'el trabajo $1, al que este espera, no se completó'],
  [/^worker (\S+) sent a wrong result: (.+)$/s, 'el trabajador $1 envió un resultado incorrecto: $2'],
  [/^the worker's result was refused: (.+)$/s, 'el resultado del trabajador se rechazó: $1'],
  [/^(.+); it is not tried again after (\d+) attempts that ended like this or failed$/s, '$1; no se intenta más tras $2 intentos que acabaron así o fallaron'],
  [/^(.+); the part that came is kept$/s, '$1; se conserva lo que llegó'],
  // Work sources.
  [/^all nonces are done: waiting for the pool's next job$/, 'todos los nonces están hechos: se espera el próximo trabajo del pool'],
  [/^the connection that the job came by is gone$/, 'la conexión por la que llegó el trabajo ya no existe'],
  [/^another block came first$/, 'otro bloque llegó antes'],
  [/^the connection was lost before the answer$/, 'la conexión se perdió antes de la respuesta'],
  [/^(stratum\+\S+): (.+)$/s, '$1: $2'],
  [/^the node does not answer: (.+)$/s, 'el nodo no responde: $1'],
  [/^the node says: (.+) \((.+)\)$/s, 'el nodo dice: $1 ($2)'],
  [/^the node answers nonsense: (.+)$/s, 'el nodo responde algo sin sentido: $1'],
  [/^the node is still synchronising: it has (\S+) of (\S+) blocks$/, 'el nodo aún se está sincronizando: tiene $1 de $2 bloques'],
  [/^the node is on another chain: it follows (\S+), the wallet address is of (\S+)$/, 'el nodo está en otra cadena: sigue $1, la dirección de la cartera es de $2'],
  [/^it wants a login: give user and password$/, 'pide identificarse: da usuario y contraseña'],
  [/^it refuses user and password$/, 'no acepta el usuario y la contraseña'],
  [/^no answer in time$/, 'no hubo respuesta a tiempo'],
  [/^Connection refused \(os error 111\)$/, 'conexión rechazada'],
  [/^no connection in time$/, 'no hubo conexión a tiempo'],
  [/^no connection: (.+)$/s, 'no hay conexión: $1'],
  [/^no TLS: (.+)$/s, 'no hay TLS: $1'],
  [/^the connection broke: (.+)$/s, 'la conexión se cortó: $1'],
  [/^the other side closed the connection$/, 'el otro lado cerró la conexión'],
  [/^the pool does not answer any more$/, 'el pool ya no responde'],
  [/^the pool does not answer the login$/, 'el pool no responde al inicio de sesión'],
  [/^the pool gives no work$/, 'el pool no da trabajo'],
  [/^the pool refuses the login: (.+)$/s, 'el pool rechaza el inicio de sesión: $1'],
  [/^no reason given$/, 'sin decir por qué'],
  // Who may connect.
  [/^the host '(.*)' is not allowed without a token: set FLOTA_TOKEN, or name it in FLOTA_ALLOWED_ORIGINS$/, 'no se acepta el servidor «$1» sin token: define FLOTA_TOKEN, o nómbralo en FLOTA_ALLOWED_ORIGINS'],
  [/^the origin '(.*)' is not allowed: name it in FLOTA_ALLOWED_ORIGINS$/, 'no se acepta el origen «$1»: nómbralo en FLOTA_ALLOWED_ORIGINS'],
  [/^other$/, 'otros'],
];

/** A sentence of master or worker, as far as it is known. */
export function translated(text: string, t: Texts): string {
  if (t === en) return text;
  for (const [sentence, words] of SENTENCES) {
    const found = sentence.exec(text);
    if (found) return words.replace(/\$(\d)/g, (_, n: string) => translated(found[Number(n)] ?? '', t));
  }
  return text;
}

/** A refusal of the API: in English the master's own words say more than a code could. */
export function problemText(problem: { code: string; message: string }, t: Texts): string {
  if (t === en) return problem.message;
  return PROBLEMS[problem.code] ?? translated(problem.message, t);
}
