// The one Socket.IO connection of the page: connects, resumes its session, says since when it is silent.
import type { Socket } from 'socket.io-client';
import { auth } from './auth.svelte';
import { tab } from './storage';

interface Session {
  id: string;
  secret: string;
}

type Handler = (payload: never) => void;

const ACK_TIMEOUT_MS = 8000;
const RECONNECT_MS = 1500;
/** A session that is taken away sooner than this after it was resumed is in use elsewhere. */
const CONTESTED_MS = 10_000;

class Link {
  state = $state<'connecting' | 'online' | 'offline'>('connecting');
  sessionId = $state<string | null>(null);
  /** When the page last heard from the master; the age of what it shows while offline. */
  heardAt = $state<number | null>(null);
  /** Why the master refuses us, in its words. */
  refusal = $state<string | null>(null);

  #socket: Socket | null = null;
  #handlers = new Map<string, Set<Handler>>();
  #ready = new Set<() => void>();
  #session: Session | null = tab.read<Session>('session');
  #fresh: Partial<Session> = {};
  #resumedAt = 0;

  async start(): Promise<void> {
    if (this.#session && !(await claim(this.#session.id))) this.#session = null;
    const { io } = await import('socket.io-client');
    const socket = io(location.origin, {
      path: new URL('socket.io/', document.baseURI).pathname,
      auth: (give: (data: object) => void) => give(auth.token ? { token: auth.token } : {}),
      transports: ['websocket', 'polling'],
      tryAllTransports: true,
      reconnectionDelayMax: 5000,
      autoConnect: false,
    });
    this.#socket = socket;
    socket.on('connect', () => this.#connected());
    socket.on('disconnect', (reason) => this.#disconnected(reason));
    socket.on('connect_error', (error) => this.#refused(error));
    socket.on('session-id', (id: unknown) => this.#offered({ id: String(id) }));
    socket.on('session-secret', (secret: unknown) => this.#offered({ secret: String(secret) }));
    socket.onAny((event: string, payload: unknown) => {
      this.heardAt = Date.now();
      for (const handler of this.#handlers.get(event) ?? []) handler(payload as never);
    });
    socket.connect();
  }

  on<T>(event: string, handler: (payload: T) => void): () => void {
    const set = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, set.add(handler as Handler));
    return () => set.delete(handler as Handler);
  }

  /** Called on every connection, once the session is there again; at once when it already is. */
  onReady(handler: () => void): () => void {
    this.#ready.add(handler);
    if (this.state === 'online') handler();
    return () => this.#ready.delete(handler);
  }

  emit(event: string, payload: unknown): boolean {
    if (!this.#socket?.connected) return false;
    this.#socket.emit(event, payload);
    return true;
  }

  /** The acknowledgement of the master; null when it gave none in time. */
  async request<T>(event: string, payload: unknown): Promise<T | null> {
    if (!this.#socket?.connected) return null;
    try {
      return (await this.#socket.timeout(ACK_TIMEOUT_MS).emitWithAck(event, payload)) as T;
    } catch {
      return null;
    }
  }

  reconnect(): void {
    this.refusal = null;
    this.#socket?.disconnect().connect();
  }

  heard(): void {
    this.heardAt = Date.now();
  }

  #connected(): void {
    this.refusal = null;
    this.#fresh = {};
    if (this.#session) this.#resume(this.#session);
    this.state = 'online';
    this.heard();
    for (const handler of this.#ready) handler();
  }

  /** What follows may be sent at once: the master takes events in order. */
  #resume(session: Session): void {
    this.sessionId = session.id;
    this.#resumedAt = Date.now();
    void this.request<{ error?: unknown }>('session-resume', { sessionId: session.id, secret: session.secret }).then(
      (ack) => {
        if (!ack?.error) return;
        this.#session = null;
        this.#adopt();
      },
    );
  }

  #offered(part: Partial<Session>): void {
    Object.assign(this.#fresh, part);
    if (!this.#session) this.#adopt();
  }

  #adopt(): void {
    this.sessionId = this.#fresh.id ?? null;
    if (!this.#fresh.id || !this.#fresh.secret) return;
    this.#session = { id: this.#fresh.id, secret: this.#fresh.secret };
    tab.write('session', this.#session);
    void claim(this.#session.id);
  }

  #disconnected(reason: string): void {
    this.state = 'offline';
    if (reason !== 'io server disconnect') return;
    // Another tab with this session would take it back, and so on for ever: the one that came later starts its own.
    if (Date.now() - this.#resumedAt < CONTESTED_MS) this.#session = null;
    // A master that shuts down says goodbye first; the library takes that for final.
    setTimeout(() => this.#socket?.connect(), RECONNECT_MS);
  }

  #refused(error: Error & { type?: string; context?: { status?: number }; data?: unknown }): void {
    this.state = 'offline';
    const byTransport = error.type === 'TransportError';
    if (error.context?.status === 401 || (!byTransport && /token|unauth|401/i.test(refusalText(error)))) {
      auth.refused();
    } else if (!byTransport && !this.#socket?.active) {
      this.refusal = refusalText(error);
      setTimeout(() => this.#socket?.connect(), 5 * RECONNECT_MS);
    }
  }
}

function refusalText(error: Error & { data?: unknown }): string {
  const data = error.data as { message?: unknown; detail?: unknown } | undefined;
  const more = data?.detail ?? data?.message;
  return typeof more === 'string' && more !== error.message ? `${error.message} ${more}` : error.message;
}

const CLAIM_MS = 500;

/**
 * A duplicated tab copies the session, and two tabs would take it from each other for ever: the second one starts its own. A
 * page that is being reloaded gives its claim up a moment late.
 */
async function claim(id: string): Promise<boolean> {
  if (!navigator.locks) return true;
  return new Promise((resolve) => {
    const held = () => {
      resolve(true);
      return new Promise<void>(() => {});
    };
    navigator.locks
      .request(`flota.session.${id}`, { signal: AbortSignal.timeout(CLAIM_MS) }, held)
      .catch(() => resolve(false));
  });
}

export const link = new Link();
