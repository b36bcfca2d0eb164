// The link goes into the browser's address bar, so that a reload asks the same again.
const keep = () => {
  const link = element.querySelector('a');
  if (link) history.replaceState(history.state, '', link.getAttribute('href'));
};
watch('value', keep);
