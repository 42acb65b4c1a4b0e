// Markdown to safe HTML, block by block: while an answer grows only its last block is made anew. Loaded with the first answer.
import DOMPurify from 'dompurify';
import { Marked, type Token, type Tokens } from 'marked';

/** A part of an answer: code has a frame of its own, everything else is HTML that was made safe. */
export type Block = { raw: string } & ({ type: 'html'; html: string } | { type: 'code'; language: string; text: string });

const TAGS =
  'a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i li ol p pre s span strong sub sup table tbody td th thead tr ul'.split(
    ' ',
  );
const ATTRIBUTES = ['align', 'class', 'href', 'rel', 'start', 'target', 'title'];

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

/** Answers must not make this browser fetch anything: a picture becomes a link to it. */
function anchor(href: string, inner: string, title?: string | null): string {
  if (!/^(https?:|mailto:)/i.test(href)) return inner;
  const tip = title ? ` title="${escape(title)}"` : '';
  return `<a href="${escape(href)}" target="_blank" rel="noopener noreferrer nofollow"${tip}>${inner}</a>`;
}

const marked = new Marked({
  gfm: true,
  breaks: false,
  renderer: {
    html: ({ text }: Tokens.HTML | Tokens.Tag) => escape(text),
    // A sign instead of a control that nobody can use and no screen reader can name.
    checkbox: ({ checked }: Tokens.Checkbox) => `<span class="task">${checked ? '☑' : '☐'}</span> `,
    image: ({ href, text, title }: Tokens.Image) => anchor(href, `[${escape(text || href)}]`, title),
    link({ href, title, tokens }: Tokens.Link) {
      return anchor(href, this.parser.parseInline(tokens), title);
    },
  },
});

function block(token: Token): Block {
  const { raw } = token;
  if (token.type === 'code') {
    const { lang, text } = token as Tokens.Code;
    return { raw, type: 'code', language: /^[\w+#.-]+/.exec(lang ?? '')?.[0].toLowerCase() ?? '', text };
  }
  const html = DOMPurify.sanitize(marked.parser([token]), {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
  });
  return { raw, type: 'html', html };
}

/** Returns a function that turns a growing text into its blocks, doing again only what changed. */
export function renderer(): (text: string) => Block[] {
  let known: Block[] = [];
  return (text) => {
    const tokens = marked.lexer(text).filter((token) => token.type !== 'space' && token.type !== 'def');
    known = tokens.map((token, i) => (known[i]?.raw === token.raw ? known[i] : block(token)));
    return known;
  };
}
