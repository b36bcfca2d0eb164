const pictures = JSON.parse(document.getElementById("pictures").textContent);
// Each place of a picture takes the one copy of it; one that could not be read shows its name.
function place(image) {
  const source = pictures[image.dataset.picture][1];
  if (source) image.src = source;
}
// As they come near, since a page may have 50,000.
const near = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) {
    if (!isIntersecting) continue;
    place(target);
    near.unobserve(target);
  }
}, {rootMargin: "100%"});
function placePictures(part) {
  for (const image of part.querySelectorAll("[data-picture]")) near.observe(image);
}
placePictures(document);
addEventListener("beforeprint", () => document.querySelectorAll("[data-picture]").forEach(place));
