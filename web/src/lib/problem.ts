// Errors of the master (RFC 9457 problem documents), and which field of what was sent they are about. Pure.

export interface FieldError {
  /** Dotted, as in the JSON that was sent: `payload.inputs.0`. Empty when it is about the whole. */
  path: string;
  message: string;
}

export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly fields: FieldError[];
  readonly traceId: string | null;
  readonly retryAfterS: number | null;

  constructor(status: number, body: unknown, retryAfterS: number | null = null) {
    const doc = record(body);
    super(text(doc.detail) ?? text(doc.message) ?? text(doc.title) ?? '');
    this.name = 'Problem';
    this.status = status;
    this.code = text(doc.code) ?? '';
    this.traceId = text(doc.trace_id);
    this.retryAfterS = retryAfterS;
    this.fields = fieldErrors(doc, this.message);
  }
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}

/** `/payload/key`, `$.payload.key`, `payload.inputs[0]` and `payload.key` are one path. */
export function normalPath(path: string): string {
  return path
    .replace(/^#?\/|^\$\.?/, '')
    .replace(/\[(\d+)\]/g, '.$1')
    .replaceAll('/', '.')
    .replace(/^\.+/, '');
}

const PATH_KEYS = ['path', 'pointer', 'field'];

function pathOf(doc: Record<string, unknown>): string | null {
  for (const key of PATH_KEYS) {
    const value = text(doc[key]);
    if (value !== null) return normalPath(value);
  }
  return null;
}

/** Many messages begin with the path: "payload.key: odd number of digits". */
function pathInMessage(message: string): FieldError | null {
  const match = /^[`'"]?((?:payload|requires|labels|[a-z_]+)(?:[./[][\w.\][/]*)?)[`'"]?\s*(?::|\s(?=must|is|has|needs))\s*(.+)$/s.exec(
    message,
  );
  if (!match?.[1] || !match[2]) return null;
  return { path: normalPath(match[1]), message };
}

function fieldErrors(doc: Record<string, unknown>, message: string): FieldError[] {
  const list = Array.isArray(doc.errors) ? doc.errors : [];
  const errors = list.map(record).map((item) => ({
    path: pathOf(item) ?? '',
    message: text(item.detail) ?? text(item.message) ?? message,
  }));
  if (errors.length > 0) return errors;
  const path = pathOf(doc);
  if (path !== null) return [{ path, message }];
  const found = pathInMessage(message);
  return found ? [found] : [];
}

/** The error that belongs to a field: the field itself, or what lies inside it; of a list, which one. */
export function errorAt(errors: FieldError[], path: string, say = (text: string) => text): string | null {
  const hit = errors.find((error) => error.path === path || error.path.startsWith(`${path}.`));
  if (!hit) return null;
  const colon = hit.message.indexOf(': ');
  const named = colon > 0 && normalPath(hit.message.slice(0, colon)) === hit.path;
  const message = say(named ? hit.message.slice(colon + 2) : hit.message);
  const index = /^\d+/.exec(hit.path.slice(path.length + 1));
  return index ? `${Number(index[0]) + 1}: ${message}` : message;
}
