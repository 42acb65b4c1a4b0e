// What this browser remembers about its user: appearance, language, shortcuts. And the texts in that language.
import { en, type Texts } from './i18n/en';
import { es } from './i18n/es';
import { local } from './storage';

export type Theme = 'system' | 'light' | 'dark';
export type Locale = 'en' | 'es';

export const TEXTS: Record<Locale, Texts> = { en, es };

interface Saved {
  theme?: Theme;
  locale?: Locale;
  shortcuts?: boolean;
}

function browserLocale(): Locale {
  return navigator.language.toLowerCase().startsWith('es') ? 'es' : 'en';
}

class Prefs {
  theme = $state<Theme>('system');
  locale = $state<Locale>('en');
  shortcuts = $state(true);
  t = $derived(TEXTS[this.locale]);
  /** The language as this user's country writes dates and figures. */
  region = $derived(navigator.languages.find((tag) => tag.toLowerCase().startsWith(this.locale)) ?? this.locale);

  constructor() {
    const saved = local.read<Saved>('prefs') ?? {};
    this.theme = saved.theme ?? 'system';
    this.locale = saved.locale && saved.locale in TEXTS ? saved.locale : browserLocale();
    this.shortcuts = saved.shortcuts ?? true;
  }

  set(change: Saved): void {
    Object.assign(this, change);
    local.write('prefs', { theme: this.theme, locale: this.locale, shortcuts: this.shortcuts });
    this.apply();
  }

  apply(): void {
    const root = document.documentElement;
    root.lang = this.locale;
    if (this.theme === 'system') delete root.dataset.theme;
    else root.dataset.theme = this.theme;
    this.#colourBars();
  }

  /** The browser's own bars follow the theme that was chosen, not only the system's. */
  #colourBars(): void {
    for (const meta of document.querySelectorAll<HTMLMetaElement>('meta[name="theme-color"]')) {
      const theme = this.theme === 'system' ? (meta.media.includes('dark') ? 'dark' : 'light') : this.theme;
      meta.content = theme === 'dark' ? '#0c1417' : '#f6f3ec';
    }
  }
}

export const prefs = new Prefs();
