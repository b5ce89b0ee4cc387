// Keeps the end of the log in sight as it comes; whoever scrolls back stays where they are.
const page = document.documentElement;
const toEnd = () => scrollTo(0, page.scrollHeight);
let follows = true;
addEventListener("scroll", () => { follows = scrollY + innerHeight > page.scrollHeight - 80; });
document.body.addEventListener("htmx:sse:after:message", () => { if (follows) toEnd(); });
toEnd();
