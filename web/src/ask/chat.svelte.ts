// The conversation on the page: asks, follows the answers over connection losses and reloads, keeps them.
import { api } from '../lib/api';
import { auth } from '../lib/auth.svelte';
import { link } from '../lib/link.svelte';
import { Problem } from '../lib/problem';
import { local, tab } from '../lib/storage';
import type { AiResponse, JobError, JobEvent } from '../lib/types';
import { ended } from '../lib/types';
import { uuidTime, uuidv7 } from '../lib/uuid';
import { applyEvent, applyJob, applyQueued, applyResponse, fail, newAnswer, open, type Answer, type Turn } from './answer';
import * as history from './history';
import { messages, titleOf } from './messages';
import { newestFirst } from './recall';
import * as remote from './remote';
import { leafBelow, path, versions } from './tree';

type Ack = { jobId?: string; error?: Partial<JobError> | string } | null;

const SAVE_MS = 400;
/** While an answer grows: of a long conversation each save writes very much. What is lost with a browser that dies, the master has. */
const SAVE_GROWING_MS = 2000;
/** The answer follows the event of the end at once; if it doesn't, the job is asked. */
const ANSWER_MS = 400;
/** Shorter conversations are sent whole. */
const LONG_TURNS = 3;
const LOST_MS = 20_000;
/** How many conversations the arrow keys look back into. */
const ASKED_CHATS = 10;
/** How often one that waits asks why, which no event tells. */
const WHY_MS = 3000;

class Chat {
  conversation = $state<history.Conversation | null>(null);
  entries = $state.raw<history.Entry[]>(history.index());
  /** Empty: the master chooses. */
  model = $state(local.read<string>('model') ?? '');
  stopping = $state(false);

  #unbound: { answer: Answer; query: string } | null = null;
  #saving: ReturnType<typeof setTimeout> | null = null;

  start(): void {
    link.on<JobEvent>('job-event', (event) => this.#event(event));
    link.on<AiResponse>('ai-response', (response) => this.#response(response));
    link.on<{ position: number; jobId: string }>('task-queued', (queued) => {
      const answer = this.#find(queued.jobId);
      if (answer) this.#changed(() => applyQueued(answer, queued.position));
    });
    link.onReady(() => this.#catchUp());
    addEventListener('pagehide', () => this.save());
    document.addEventListener('visibilitychange', () => this.save());
    setInterval(() => this.#askWhy(), WHY_MS);
    addEventListener('storage', () => (this.entries = history.index()));
  }

  /** What is shown of the conversation: the branch that was looked at last. */
  turns = $derived(this.conversation ? path(this.conversation) : []);
  last = $derived<Turn | null>(this.turns.at(-1) ?? null);

  get answering(): boolean {
    return this.last !== null && open(this.last.answer);
  }

  /** The conversation to show when the address names none: the one this tab was in. */
  current(): string | null {
    return tab.read<string>('chat');
  }

  show(id: string | null): void {
    if (id === (this.conversation?.id ?? null)) return;
    this.save();
    this.#unbound = null;
    this.stopping = false;
    this.conversation = id === null ? null : history.load(id);
    tab.write('chat', this.conversation?.id ?? null);
    if (link.state === 'online') this.#catchUp();
  }

  remove(id: string): void {
    const entry = this.entries.find((known) => known.id === id);
    if (this.conversation?.id === id) this.conversation = null;
    this.entries = history.remove(id);
    if (entry) remote.remove(entry);
  }

  clear(): void {
    this.conversation = null;
    this.entries.forEach(remote.remove);
    history.clear();
    this.entries = [];
  }

  setModel(model: string): void {
    this.model = model;
    local.write('model', model);
  }

  rename(id: string, title: string): void {
    if (this.conversation?.id === id) this.conversation.title = title;
    this.entries = history.rename(id, title);
    const entry = this.entries.find((known) => known.id === id);
    if (entry) remote.rename(entry, title);
  }

  /** What was asked before, the newest first: in this conversation, then in the latest others. */
  asked(): string[] {
    const others = this.entries.filter((entry) => entry.id !== this.conversation?.id).slice(0, ASKED_CHATS);
    const before = others.toReversed().flatMap((entry) => history.load(entry.id)?.turns ?? []);
    return newestFirst([...before, ...this.turns].map((turn) => turn.query));
  }

  /** Asks, and returns the id of the conversation. */
  ask(query: string): string {
    const now = Date.now();
    this.conversation ??= { id: uuidv7(now), title: titleOf(query), updatedAt: now, turns: [], head: null };
    return this.#ask(this.conversation, query, this.conversation.head);
  }

  /** The question of `turn` once more, or another one in its place: a branch beside it. */
  again(turn: Turn, query = turn.query): void {
    if (this.conversation && !this.answering) this.#ask(this.conversation, query, turn.parent);
  }

  /** Goes to the next or the last version of a turn. */
  turnTo(turn: Turn, step: 1 | -1): void {
    if (!this.conversation) return;
    const all = versions(this.conversation.turns, turn);
    const other = all[all.findIndex((version) => version.id === turn.id) + step];
    if (!other) return;
    this.conversation.head = leafBelow(this.conversation.turns, other).id;
    this.save();
  }

  #ask(conversation: history.Conversation, query: string, parent: string | null): string {
    const now = Date.now();
    const before = path({ turns: conversation.turns, head: parent });
    const id = uuidv7(now);
    conversation.turns.push({ id, parent, query, model: this.model || null, answer: newAnswer(now) });
    conversation.head = id;
    conversation.updatedAt = now;
    this.stopping = false;
    const answer = this.last!.answer;
    this.#unbound = { answer, query };
    void this.#send(conversation, this.last!, before);
    tab.write('chat', conversation.id);
    this.save();
    return conversation.id;
  }

  /** A first question, and one whose conversation the master has, is a plain one; else it carries what was said before, as a job. */
  async #send(conversation: history.Conversation, turn: Turn, before: Turn[]): Promise<void> {
    const { answer, query } = turn;
    const model = this.model ? { model: this.model } : {};
    const key = auth.apiKey ? { apiKey: auth.apiKey } : {};
    const ids = before.map(({ id }) => id);
    const copy = await remote.prepare($state.snapshot(conversation) as history.Conversation, ids, link.sessionId);
    if (ids.length === 0 || copy) conversation.remote = copy;
    const told = copy ? [] : messages(before);
    const where = copy ? { conversationId: conversation.id, conversationSecret: copy.secret } : {};
    const ack =
      told.length === 0
        ? await link.request<Ack>('user-query', { query, ...key, ...model, ...where })
        : await link.request<Ack>('job-submit', {
            kind: 'ai.chat',
            payload: { messages: [...told, { role: 'user', content: query }], ...model },
            ...key,
          });
    if (copy && typeof ack?.error === 'object' && ack.error.code === 'not_found') {
      // The master forgot the conversation: from here on this browser alone keeps it.
      conversation.remote = null;
      return this.#send(conversation, turn, before);
    }
    this.#changed(() => {
      if (ack?.error) return fail(answer, asError(ack.error));
      if (!ack?.jobId) return;
      this.#bind(answer, ack.jobId);
      if (copy) conversation.remote?.turns.push(turn.id);
    });
  }

  /** A conversation that another device began. */
  async open(id: string, secret: string): Promise<void> {
    if (this.entries.some((entry) => entry.id === id)) return;
    this.entries = history.save(await remote.open(id, secret));
  }

  stop(): void {
    const answer = this.last?.answer;
    if (!answer || !open(answer)) return;
    this.stopping = true;
    if (answer.jobId) this.#cancel(answer.jobId, answer);
  }

  #cancel(jobId: string, answer: Answer): void {
    if (link.emit('job-cancel', { jobId })) setTimeout(() => void this.#settle(answer), 4 * ANSWER_MS);
    else void api.cancel(jobId).then((job) => this.#changed(() => applyJob(answer, job, Date.now())), () => undefined);
  }

  #bind(answer: Answer, jobId: string): void {
    if (this.#unbound?.answer === answer) this.#unbound = null;
    if (answer.jobId === jobId) return;
    answer.jobId = jobId;
    if (this.stopping) this.#cancel(jobId, answer);
  }

  #find(jobId: string): Answer | null {
    const known = this.conversation?.turns.findLast((turn) => turn.answer.jobId === jobId);
    if (known) return known.answer;
    const waiting = this.#unbound?.answer;
    const made = uuidTime(jobId);
    if (!waiting || (made !== null && made < waiting.askedAt - 60_000)) return null;
    if (watched.has(jobId)) return null;
    this.#bind(waiting, jobId);
    return waiting;
  }

  #event(event: JobEvent): void {
    const answer = this.#find(event.jobId);
    if (!answer || !open(answer)) return;
    this.#changed(() => applyEvent(answer, event));
    if (ended(event.type)) setTimeout(() => void this.#settle(answer), ANSWER_MS);
  }

  #response(response: AiResponse): void {
    const answer = response.jobId ? this.#find(response.jobId) : this.#refusedOne(response.query);
    if (!answer) return;
    this.#changed(() => applyResponse(answer, response, Date.now()));
    if (this.conversation?.remote && this.turns.length >= LONG_TURNS) void this.#learnDropped(answer);
  }

  /** Of a long conversation the master sends what fits; only the job says how much that left out. */
  async #learnDropped(answer: Answer): Promise<void> {
    const job = answer.jobId ? await api.job(answer.jobId).catch(() => null) : null;
    const dropped = (job?.result as { dropped_turns?: number } | null)?.dropped_turns ?? 0;
    if (dropped > 0) this.#changed(() => (answer.dropped = dropped));
  }

  #refusedOne(query: string | undefined): Answer | null {
    return this.#unbound && (query === undefined || this.#unbound.query === query) ? this.#unbound.answer : null;
  }

  /** After a connection was lost or the page loaded anew: hear what was missed, and learn what ended meanwhile. */
  #catchUp(): void {
    for (const turn of this.conversation?.turns ?? []) {
      const { answer } = turn;
      if (!open(answer)) continue;
      if (answer.jobId === null) {
        this.#unbound = { answer, query: turn.query };
        setTimeout(() => this.#giveUp(answer), LOST_MS);
        continue;
      }
      const since = answer.seq >= 0 ? { lastSeq: answer.seq } : {};
      link.emit('job-subscribe', { jobId: answer.jobId, ...since });
      void this.#settle(answer);
    }
  }

  #giveUp(answer: Answer): void {
    if (answer.jobId === null && open(answer) && link.state === 'online') {
      this.#changed(() => fail(answer, { code: 'not_sent', message: '' }));
    }
  }

  #askWhy(): void {
    const answer = this.last?.answer;
    const waits = answer?.state === 'waiting' && Date.now() - answer.askedAt > WHY_MS;
    if (waits && link.state === 'online' && !document.hidden) void this.#settle(answer);
  }

  async #settle(answer: Answer): Promise<void> {
    if (!open(answer) || answer.jobId === null) return;
    try {
      const job = await api.job(answer.jobId);
      if (ended(job.state) || answer.state === 'waiting') this.#changed(() => applyJob(answer, job, Date.now()));
    } catch (error) {
      if (error instanceof Problem && error.status === 404) this.#changed(() => fail(answer, { code: 'gone', message: '' }));
    }
  }

  #changed(change: () => void): void {
    change();
    if (!this.answering) this.stopping = false;
    this.#saving ??= setTimeout(() => this.save(), this.answering ? SAVE_GROWING_MS : SAVE_MS);
  }

  save(): void {
    if (this.#saving) clearTimeout(this.#saving);
    this.#saving = null;
    if (this.conversation && this.conversation.turns.length > 0) {
      this.entries = history.save($state.snapshot(this.conversation) as history.Conversation);
    }
  }
}

/** Jobs that are followed for another reason: their events are no answers to what was asked here. */
export const watched = new Set<string>();

function asError(error: Partial<JobError> | string): JobError {
  if (typeof error === 'string') return { code: 'refused', message: error };
  const problem = error as Partial<JobError> & { detail?: string; title?: string };
  return { code: problem.code ?? 'refused', message: problem.message ?? problem.detail ?? problem.title ?? '' };
}

export const chat = new Chat();
